"""Each check of the kit fails for a plugin that breaks just this rule, and says which; a good plugin passes all."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pytest
import torch
from kit_probes import HidesState, Lr, Net, Sgd, Width, contract, drawn, fails, load, module_of, offer, prepare
from torch import nn

from mnistlab import api
from mnistlab.api import Choice, Config, Float, ImageShape, Int, LabelledImages, hookimpl
from mnistlab.plugins.registry import Offer
from mnistlab.testing import (
    ChannelsLastContract,
    DatasetContract,
    ModelContract,
    OptimizerContract,
    PluginContract,
    StaysOnDeviceContract,
    TransformContract,
    VmapContract,
)
from mnistlab.testing.points import points, sample

# --- models -------------------------------------------------------------------------------------------------------


class MixesRows(Net):
    def forward(self, images):
        return super().forward(images) - images.mean()


class Unused(Net):
    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.spare = nn.Linear(2, 2)


class Double(Net):
    def forward(self, images):
        return super().forward(images).double()


class Wide(Net):
    def forward(self, images):
        return super().forward(images).repeat(1, 2)


class Nan(Net):
    def forward(self, images):
        return super().forward(images) / 0.0


class WritesInput(Net):
    def forward(self, images):
        return super().forward(images.mul_(0.5))


class SeedsItself(Net):
    def __init__(self, config, shape):
        torch.manual_seed(0)
        super().__init__(config, shape)


class DrawsFromNumpy(Net):
    def __init__(self, config, shape):
        super().__init__(config, shape)
        np.random.rand()


class IgnoresSeed(Net):
    count = 0

    def __init__(self, config, shape):
        super().__init__(config, shape)
        IgnoresSeed.count += 1
        nn.init.constant_(self.last.bias, IgnoresSeed.count)


class Frozen(Net):
    def forward(self, images):
        return super().forward(images) * 0.0 + sum(p.sum() * 0.0 for p in self.parameters())


class BreaksAtItsCorner(Net):
    def __init__(self, config, shape):
        super().__init__(config, shape)
        if config.width == 16:
            self.last = nn.Linear(16, shape.classes + 1)


MODEL_FAULTS = [
    (MixesRows, "judges_each_image_by_itself", "change by up to .* with the rest of its batch"),
    (Unused, "uses_every_parameter", "get no gradient: spare.weight, spare.bias"),
    (Double, "takes_any_number_of_images", "must be float32, but are torch.float64"),
    (Wide, "takes_any_number_of_images", r"must be of shape \(3, 4\), but are \(3, 8\)"),
    (Nan, "takes_any_number_of_images", "logits must be finite"),
    (WritesInput, "leaves_its_input_alone", "changes the images that it is given"),
    (SeedsItself, "starts_from_its_seed", "seeds 5 and 6 give the same weights"),
    (IgnoresSeed, "starts_from_its_seed", "the same seed gives other weights in last.bias"),
    (DrawsFromNumpy, "draws_from_torch_only", "draws from or seeds the global generator of numpy"),
    (HidesState, "state_survives_a_round_trip", "is a tensor no buffer"),
    (Frozen, "learns", "30 steps on one batch took its loss from .* to"),
    (BreaksAtItsCorner, "builds_everywhere_in_its_domain", r"probe at .*width=16.* must be of shape \(2, 4\)"),
]


@pytest.mark.parametrize(("build", "check", "message"), MODEL_FAULTS, ids=lambda v: getattr(v, "__name__", None))
def test_a_fault_of_a_model_is_found(build, check, message):
    tried = getattr(contract(ModelContract), f"test_model_{check}")
    arguments = (3,) if check == "takes_any_number_of_images" else ()
    tried(offer("model", build=Net), *arguments)
    fails(message, tried, offer("model", build=build), *arguments)


def test_a_loss_that_is_no_scalar_is_found():
    wrong = offer("model", build=Net, loss=lambda module, batch: module(batch.images).sum(1))
    fails("its loss must be a scalar", contract(ModelContract).test_model_learns, wrong)


def test_what_is_no_module_is_found():
    wrong = offer("model", build=lambda config, shape: 3)
    fails("build returned int, not a torch module", contract(ModelContract).test_model_learns, wrong)


class SensitiveToFormat(Net):
    def forward(self, images):
        return super().forward(images) + float(images.is_contiguous(memory_format=torch.channels_last))


def test_claims_are_checked():
    small = {"shapes": (ImageShape(3, 8, 8, 4),)}
    contract(ChannelsLastContract, **small).test_model_takes_both_memory_formats(offer("model", build=Net))
    check = contract(ChannelsLastContract, **small).test_model_takes_both_memory_formats
    fails("channels_last gives other logits", check, offer("model", build=SensitiveToFormat))
    contract(VmapContract).test_model_can_be_stacked(offer("model", build=Net))


def sends_a_constant(config, shape):
    ones = torch.ones(shape.width)
    return lambda images, _generator: images * ones.to(images)


def reads_a_number(config, shape):
    return lambda images, _generator: images / float(images.max())


def forgets_to_send(config, shape):
    ones = torch.ones(shape.width)
    return lambda images, _generator: images * ones


def test_a_transform_that_makes_a_gpu_wait_is_found():
    check = contract(StaysOnDeviceContract).test_transform_stays_on_its_device
    check(offer("transform", build=lambda config, shape: lambda images, generator: images.flip(3)))
    fails("wait at each batch: copies cpu to cuda", check, offer("transform", build=sends_a_constant))
    fails("wait at each batch: reads a number", check, offer("transform", build=reads_a_number))
    with pytest.raises(RuntimeError, match="device"):  # which a CPU never says
        check(offer("transform", build=forgets_to_send))


# --- optimizers ---------------------------------------------------------------------------------------------------


class LeavesOneOut(Sgd):
    def chosen(self, module):
        return list(module.parameters())[:-1] or list(module.parameters())


class HoldsTwice(Sgd):
    def __init__(self, config, module, total):
        super().__init__(config, module, total)
        self.second = torch.optim.SGD(list(module.parameters())[:1], lr=config.lr)


class Climbs(Sgd):
    def step(self):
        for parameter in self.optimizer.param_groups[0]["params"]:
            parameter.grad.neg_()
        self.optimizer.step()


class ForgetsItsState(Sgd):
    def load_state_dict(self, state):
        pass


class KeepsGradients(Sgd):
    def zero_grad(self):
        pass


class HalfAveraging(Sgd):
    def eval(self):
        pass


class SwitchesOneWay(Sgd):
    def eval(self):
        for parameter in self.optimizer.param_groups[0]["params"]:
            parameter.data.mul_(0.9)

    def train(self):
        pass


OPTIMIZER_FAULTS = [
    (LeavesOneOut, "moves_every_parameter", "these parameters never change: 4.bias"),
    (HoldsTwice, "holds_each_parameter_once", "these parameters are held twice: 0.weight"),
    (Climbs, "reduces_a_quadratic", "600 steps took a quadratic from"),
    (ForgetsItsState, "goes_on_from_its_state", "goes on differently in 0.weight"),
    (KeepsGradients, "forgets_gradients", "zero_grad leaves the gradients of 0.weight"),
    (HalfAveraging, "switches_without_a_trace", r"its stepper has eval\(\) without the other"),
    (SwitchesOneWay, "switches_without_a_trace", r"a second eval\(\) changes the parameters"),
]


@pytest.mark.parametrize(("build", "check", "message"), OPTIMIZER_FAULTS, ids=lambda v: getattr(v, "__name__", None))
def test_a_fault_of_an_optimizer_is_found(build, check, message):
    tried = getattr(contract(OptimizerContract), f"test_optimizer_{check}")
    tried(offer("optimizer", Lr, build=Sgd))
    fails(message, tried, offer("optimizer", Lr, build=build))


def test_what_is_no_stepper_is_found():
    wrong = offer("optimizer", Lr, build=lambda config, module, total: object())
    fails(
        "returned object, no Stepper", contract(OptimizerContract).test_optimizer_builds_everywhere_in_its_domain, wrong
    )


# --- transforms ---------------------------------------------------------------------------------------------------


def noisy(config, shape):
    return lambda images, g: images + config.width / 100 * torch.rand(len(images), 1, 1, 1, generator=g)


def one_for_all(config, shape):
    return lambda images, g: images + torch.rand((), generator=g)


def from_the_global(config, shape):
    return lambda images, g: images + torch.rand(len(images), 1, 1, 1)


def in_place(config, shape):
    return lambda images, g: images.add_(torch.rand(len(images), 1, 1, 1, generator=g))


def cropped(config, shape):
    return lambda images, g: images[:, :, 1:]


def doubled(config, shape):
    return lambda images, g: images.double()


def infinite(config, shape):
    return lambda images, g: images / 0


def stubborn(config, shape):
    return lambda images, g: images + torch.arange(len(images))[:, None, None, None]


built_before = iter(range(1, 100))


def by_its_own_count(config, shape):
    return lambda images, g: images.add_(next(built_before))


TRANSFORM_FAULTS = [
    (one_for_all, "draws_for_each_image", "all of 64 identical images come out alike"),
    (from_the_global, "draws_only_from_its_generator", "draws from or seeds the global generator of torch"),
    (by_its_own_count, "draws_only_from_its_generator", "the same generator gives other images"),
    (in_place, "leaves_its_input_alone", "changes the images that it is given"),
    (cropped, "keeps_form_everywhere_in_its_domain", r"the shape must stay torch.Size\(\[3, 1, 8, 8\]\)"),
    (doubled, "takes_a_single_image", "the dtype must stay torch.float32, but became torch.float64"),
    (infinite, "takes_a_single_image", "pixels must be finite"),
    (stubborn, "obeys_its_generator", "its generator makes no difference"),
]


@pytest.mark.parametrize(("build", "check", "message"), TRANSFORM_FAULTS, ids=lambda v: getattr(v, "__name__", None))
def test_a_fault_of_a_transform_is_found(build, check, message):
    tried = getattr(contract(TransformContract), f"test_transform_{check}")
    tried(offer("transform", build=noisy))
    fails(message, tried, offer("transform", build=build))


def test_a_transform_that_is_said_to_draw_nothing_must_draw_nothing():
    tried = contract(TransformContract, deterministic=("probe",))
    tried.test_transform_draws_for_each_image(offer("transform", build=one_for_all))
    fails("is said to be deterministic", tried.test_transform_draws_for_each_image, offer("transform", build=noisy))


# --- datasets -----------------------------------------------------------------------------------------------------


def changed(**parts):
    return lambda config, place, split: LabelledImages(**{**vars(load(config, place, split)), **parts})


loaded: list[str] = []


def restless(config, place, split):
    loaded.append(split)
    return changed(labels=np.full(6, len(loaded) % 2))(config, place, split)


DATASET_FAULTS = [
    ({"load": changed(labels=np.full(6, 9))}, "is_what_it_says", "labels must be 0 to 1, but one is 9"),
    ({"load": changed(images=np.zeros((6, 1, 4, 4)))}, "is_what_it_says", "images must be uint8, but are float64"),
    ({"load": lambda c, p, s: drawn(s, 5)}, "is_what_it_says", r"images must be of shape \(6, 1, 4, 4\)"),
    (
        {"load": lambda c, p, s: drawn("same", {"train": 6, "test": 4}[s])},
        "holds_its_test_images_apart",
        "4 test images",
    ),
    ({"load": restless}, "is_the_same_each_time", "loading it twice gives two answers"),
]


@pytest.mark.parametrize(("parts", "check", "message"), DATASET_FAULTS)
def test_a_fault_of_a_dataset_is_found(parts, check, message, tmp_path):
    tried = getattr(contract(DatasetContract), f"test_dataset_{check}")
    tried(offer("dataset", prepare=prepare, load=load), tmp_path)
    fails(message, tried, offer("dataset", **{"prepare": prepare, "load": load} | parts), tmp_path)


# --- whole plugins ------------------------------------------------------------------------------------------------


def test_a_plugin_that_does_not_load_fails_with_the_reason_of_the_registry():
    fails("implements no hook", contract(PluginContract, plugin=module_of()).test_it_loads)


def test_only_tests_of_kinds_that_are_offered_are_left():
    @hookimpl
    def mnistlab_models():
        return [offer("model", build=Net).record]

    tried = contract(PluginContract, plugin=module_of(mnistlab_models=mnistlab_models))
    tried.test_it_loads()
    assert [found.name for found in tried.offers()] == ["probe"]
    assert tried.test_model_learns is not None
    assert tried.test_transform_takes_a_single_image is None
    misnamed = contract(PluginContract, plugin=tried.plugin, names=("prob",))
    fails(r"names \['prob'\], which the plugin does not offer", misnamed.test_what_it_offers_is_there)


class Shaky(Config):
    place: list[int] = [1]

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None


def test_a_config_that_does_not_survive_its_journey_is_found():
    check = contract(ModelContract).test_its_config_survives_json_and_pickling
    fails("becomes .* as JSON", check, offer("model", Shaky, build=Net))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"model.probe.wdith": 8}, "plan 2 of the portfolio of probe: model.probe.wdith is searched nowhere; did you"),
        ({"model.probe.width": 99}, "model.probe.width = 99 is not in"),
    ],
)
def test_a_portfolio_outside_its_own_space_is_found(plan, message):
    check = contract(ModelContract).test_its_portfolio_lies_in_its_space
    good = {"model.probe.width": 8, "model.other.depth": 99, "optimizer": "adamw"}
    check(offer("model", build=Net, portfolio=(good,)))
    check(offer("transform", build=Net))
    fails(message, check, offer("model", build=Net, portfolio=(good, plan)))


def test_a_summary_without_a_full_stop_is_found():
    record = api.Model(name="probe", config=Width, build=Net, summary="A probe")
    fails(
        "must end with a full stop",
        contract(ModelContract).test_its_summary_is_a_sentence,
        Offer("model", record, "t", "1"),
    )


# --- points -------------------------------------------------------------------------------------------------------


class Points(Config):
    width: Annotated[int, Int(4, 64, log=True)] = 8
    share: Annotated[float, Float(0.0, 1.0, step=0.25)] = 0.5
    kind: Annotated[str, Choice("a", "b", "c")] = "b"
    many: Annotated[int, Choice(*range(100))] = 0


def test_the_points_are_defaults_corners_and_samples():
    found = list(points(Points, {"kind": "c"}, 5))
    assert found[0] == Points(kind="c")
    assert {point.kind for point in found} == {"c"}
    assert {point.width for point in found} >= {4, 8, 64}
    assert {point.share for point in found} <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert len(found) == 1 + 2 + 2 + 16 + 2 + 5
    assert found == list(points(Points, {"kind": "c"}, 5))


def test_a_sample_lies_in_its_domain():
    import random

    draw = random.Random(1)
    for domain in (Int(1, 9, step=2), Int(1, 1000, log=True), Float(0.1, 0.7), Float(0.001, 1, log=True), Choice("a")):
        assert all(domain.contains(sample(domain, draw)) for _ in range(200)), domain
