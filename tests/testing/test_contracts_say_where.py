"""More rules of the kit, each with a plugin that breaks just this one; and what a failure tells its author."""

from __future__ import annotations

import socket
from functools import partial
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from kit_probes import HidesState, Lr, Net, Sgd, Width, contract, drawn, fails, load, module_of, offer, prepare
from pydantic import field_validator

from mnistlab import api
from mnistlab.api import Choice, Config, DatasetInfo, Int, LabelledImages, Prediction, hookimpl
from mnistlab.errors import DataUnavailableError
from mnistlab.testing import (
    CompilesContract,
    DatasetContract,
    ModelContract,
    OptimizerContract,
    PluginContract,
    TransformContract,
    VmapContract,
)
from mnistlab.testing.points import points

# --- models -------------------------------------------------------------------------------------------------------


def predicting(**measures: Any):
    def predict(module, images):
        logits = module(images)
        return Prediction(logits=logits, measures={name: make(logits) for name, make in measures.items()})

    return predict


MEASURES = [
    ({"doubt": lambda logits: logits.sum()}, r"measure 'doubt' must be finite floats of shape \(3,\), but is of shape"),
    ({"doubt": lambda logits: logits.argmax(1)}, "but is torch.int64"),
    ({"doubt": lambda logits: logits.sum(1) / 0}, "but is not finite"),
    ({"accuracy": lambda logits: logits.sum(1)}, "measure 'accuracy' would hide the training's own val_accuracy"),
]


@pytest.mark.parametrize(("measures", "message"), MEASURES)
def test_a_fault_of_a_measure_is_found(measures, message):
    check = contract(ModelContract).test_model_takes_any_number_of_images
    check(offer("model", build=Net, predict=predicting(doubt=lambda logits: logits.amax(1))), 3)
    fails(message, check, offer("model", build=Net, predict=predicting(**measures)), 3)


def test_a_prediction_that_is_none_is_found():
    check = contract(ModelContract).test_model_takes_any_number_of_images
    bare = offer("model", build=Net, predict=lambda module, images: module(images))
    fails("predict must return a Prediction, not Tensor", check, bare, 3)


class OverflowsInBfloat16(Net):
    def forward(self, images):
        logits = super().forward(images)
        return logits / 0.0 if logits.dtype == torch.bfloat16 else logits


class NeedsFloat32(Net):
    def forward(self, images):
        return super().forward(images) @ torch.eye(4, dtype=torch.float64).to(self.norm(images.flatten(1)).dtype)


def test_what_does_not_survive_bfloat16_is_found():
    check = contract(ModelContract).test_model_works_in_bfloat16
    check(offer("model", build=Net))
    fails("in bfloat16 its loss is nan", check, offer("model", build=OverflowsInBfloat16))
    with pytest.raises(RuntimeError, match=r"raised by probe inside torch.autocast\(bfloat16\)"):
        check(offer("model", build=NeedsFloat32))


class DiffersWhenCompiled(Net):
    def forward(self, images):
        return super().forward(images) + float(torch.compiler.is_compiling())


class BreaksTheGraph(Net):
    def forward(self, images):
        logits = super().forward(images)
        torch._dynamo.graph_break()
        return logits


def test_a_claim_to_compile_is_checked(monkeypatch):
    # Whole graphs are what is claimed; to have C++ made of them, and compiled, would take half a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    check = contract(CompilesContract).test_model_compiles
    fails("the compiled model gives other logits", check, offer("model", build=DiffersWhenCompiled))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="graph_break"):
        check(offer("model", build=BreaksTheGraph))


def test_a_claim_to_be_stackable_is_checked():
    check = contract(VmapContract).test_model_can_be_stacked
    fails("stacked models answer differently", check, offer("model", build=HidesState))


# --- optimizers ---------------------------------------------------------------------------------------------------


class TakesRateFromState(Sgd):
    def state_dict(self):
        return self.optimizer.state_dict()

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state)


class IgnoresItsRate(Sgd):
    def __init__(self, config, module, total):
        super().__init__(config.model_copy(update={"lr": 0.05}), module, total)


def test_a_rate_that_comes_from_the_state_is_found():
    check = contract(OptimizerContract).test_optimizer_obeys_its_new_rate
    check(offer("optimizer", Lr, build=Sgd))
    check(offer("optimizer", Lr, build=IgnoresItsRate))  # a rate that never matters is no matter of the state
    check(offer("optimizer", Width, build=lambda config, module, total: Sgd(Lr(), module, total)))
    fails("takes the same steps at lr=0.001 and lr=0.1", check, offer("optimizer", Lr, build=TakesRateFromState))


class Noisy(Sgd):
    def step(self):
        super().step()
        for parameter in self.optimizer.param_groups[0]["params"]:
            parameter.data.add_(torch.randn_like(parameter), alpha=1e-3)


def test_an_optimizer_may_draw_from_torch_because_a_training_stores_that_generator():
    contract(OptimizerContract).test_optimizer_goes_on_from_its_state(offer("optimizer", Lr, build=Noisy))


# --- datasets -----------------------------------------------------------------------------------------------------


def asks(then):
    def ask(*arguments):
        try:
            socket.create_connection(("data.invalid", 443), timeout=1)
        except OSError:
            return then(*arguments)
        raise AssertionError("data.invalid can't be reached")

    return ask


def gives_up(config, place):
    raise DataUnavailableError("nowhere to be found")


def announcing(**parts):
    return lambda config, place: DatasetInfo(**{**vars(prepare(config, place)), **parts})


def grouped(groups):
    return lambda config, place, split: LabelledImages(**{**vars(load(config, place, split)), "groups": groups})


DATASET_FAULTS = [
    ({"prepare": asks(prepare)}, "prepare, told to be offline, uses the network: it asks for data.invalid"),
    ({"prepare": asks(gives_up)}, "prepare, told to be offline, uses the network"),
    ({"load": asks(load)}, "load uses the network: it asks for data.invalid"),
    ({"prepare": lambda config, place: {}}, "prepare must return DatasetInfo, not dict"),
    ({"load": lambda config, place, split: drawn(split, 6).images}, "load must return LabelledImages, not ndarray"),
    ({"prepare": announcing(sha256={"all": "0"})}, "64 hexadecimal digits; not so that of all"),
    ({"prepare": announcing(sha256={})}, "the sha256 of its parts must be given"),
    ({"prepare": announcing(class_names=("a",))}, "2 classes need as many names, but there are 1"),
    ({"prepare": announcing(test_count=0)}, "it must have test images, but announces 0"),
    ({"load": grouped(np.zeros(6))}, r"groups must be int64 \(6,\), but are float64"),
]


@pytest.mark.parametrize(("parts", "message"), DATASET_FAULTS, ids=lambda v: v if isinstance(v, str) else None)
def test_a_fault_of_a_dataset_is_found(parts, message, tmp_path):
    check = contract(DatasetContract).test_dataset_is_what_it_says
    fails(message, check, offer("dataset", **{"prepare": prepare, "load": load} | parts), tmp_path)


def test_a_dataset_that_is_not_at_hand_is_skipped_with_its_reason(tmp_path):
    absent = offer("dataset", prepare=gives_up, load=load)
    with pytest.raises(pytest.skip.Exception, match="probe is not at hand: nowhere to be found"):
        contract(DatasetContract).test_dataset_is_what_it_says(absent, tmp_path)


# --- configs ------------------------------------------------------------------------------------------------------


class Half(Config):
    share: Annotated[int, Choice(1, 0.5)] = 1


class Odd(Config):
    width: Annotated[int, Int(3, 6)] = 3

    @field_validator("width")
    @classmethod
    def check_width(cls, width: int) -> int:
        if width % 2 == 0:
            raise ValueError("must be odd")
        return width


def test_a_domain_that_its_field_refuses_is_found_and_a_rule_of_the_class_is_not():
    assert {point.width for point in points(Odd, {}, 8)} == {3, 5}
    with pytest.raises(AssertionError, match=r"Half.share: its domain lets in 0.5 \(one of 1, 0.5\), its type not: "):
        list(points(Half, {}, 0))


class Needy(Config):
    folder: str
    width: int = 3


def test_a_wrong_fixed_setting_fails_and_a_missing_one_skips():
    probe = offer("model", Needy, build=Net)
    with pytest.raises(pytest.skip.Exception, match="probe has no default for folder: give them in `fixed`"):
        contract(ModelContract).point(probe)
    with pytest.raises(pytest.fail.Exception, match=r"fixes \{'widht': 4\} for Width|did you mean 'width'"):
        contract(ModelContract, fixed={"probe": {"widht": 4}}).point(offer("model", build=Net))
    with pytest.raises(pytest.fail.Exception, match="width: Input should be a valid integer"):
        contract(ModelContract, fixed={"probe": {"folder": "x", "width": "wide"}}).point(probe)


# --- what a failure tells -----------------------------------------------------------------------------------------


def breaks(*arguments: Any) -> Any:
    raise ArithmeticError("too thin")


@pytest.mark.parametrize(
    ("cls", "kind", "check"),
    [
        (ModelContract, "model", "test_model_builds_everywhere_in_its_domain"),
        (TransformContract, "transform", "test_transform_keeps_form_everywhere_in_its_domain"),
        (OptimizerContract, "optimizer", "test_optimizer_builds_everywhere_in_its_domain"),
    ],
)
def test_an_error_of_the_plugin_is_told_with_its_point(cls, kind, check):
    with pytest.raises(ArithmeticError, match=r"too thin\nraised by probe at Width\(width=8\)"):
        getattr(contract(cls), check)(offer(kind, build=breaks))


def test_a_default_outside_its_domain_is_found():
    class Wide(Config):
        width: Annotated[int, Int(1, 4)] = 9

    @hookimpl
    def mnistlab_models():
        return [offer("model", Wide, build=Net).record]

    tried = contract(PluginContract, plugin=module_of(mnistlab_models=mnistlab_models))
    fails("probe.width = 9 lies outside its own domain: integer 1..4", tried.test_it_loads)


def test_a_distribution_that_offers_nothing_fails_with_the_nearest_one():
    tried = contract(PluginContract, plugin="mnistlb")
    fails(r"no installed distribution 'mnistlb' offers plugins; did you mean 'mnistlab", tried.test_it_loads)
    assert tried.offers() == []
    assert tried.test_model_learns is None
    tried.test_importing_it_has_no_side_effects()


def test_a_hook_with_a_side_effect_is_found(tmp_path, monkeypatch):
    source = "import random\ndef mnistlab_models():\n    return [random.random()]\n"
    (tmp_path / "drawing_plugin_of_tests.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = module_of()
    module.__name__ = "drawing_plugin_of_tests"
    check = contract(PluginContract, plugin=module).test_importing_it_has_no_side_effects
    fails("it draws from or seeds a global generator", check)


def test_only_the_kinds_of_the_records_that_are_named_leave_tests():
    @hookimpl
    def mnistlab_models():
        return [offer("model", build=Net).record]

    @hookimpl
    def mnistlab_transforms():
        return [api.Transform(name="other", config=Width, build=breaks, summary="Another.")]

    module = module_of(mnistlab_models=mnistlab_models, mnistlab_transforms=mnistlab_transforms)
    tried = contract(PluginContract, plugin=module, names=("other",))
    assert tried.test_model_learns is None
    assert tried.test_transform_takes_a_single_image is not None
