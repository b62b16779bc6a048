from pathlib import Path

import mnistlab_records
import pytest
import torch
from mnistlab_records.ema import AdamExponential, build, decay, kept_share
from torch.utils.flop_counter import FlopCounterMode

from mnistlab.api import ImageShape
from mnistlab.experiment import loader
from mnistlab.plugins.discovery import EVERYTHING
from mnistlab.training.loop import count_parameters
from mnistlab.training.precision import autocast

MNIST = ImageShape(1, 28, 28, 10)
MODELS = {model.name: model for model in mnistlab_records.mnistlab_models()}
SIZES = {
    "m3": (1_124_180, 173_383_808),
    "m5": (1_128_180, 137_369_600),
    "m7": (2_291_972, 148_385_472),
    "reference-net": (326_410, 15_162_752),
    "preact-resnet20": (271_994, 31_021_952),
    "thrifty-net": (697, 80_576),
}
ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "experiments" / "records").glob("*.toml"))


def net(name, shape=MNIST, **settings):
    torch.manual_seed(0)
    return MODELS[name].build(MODELS[name].config(**settings), shape).eval()


# --- nets ---------------------------------------------------------------------------------------------------------


def test_every_net_is_counted():
    assert SIZES.keys() == MODELS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_a_net_has_as_many_parameters_and_multiply_adds_as_the_published_one(name):
    module = net(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 1, 28, 28))
    assert (count_parameters(module), counter.get_total_flops() // 2) == SIZES[name]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("shape", [ImageShape(3, 32, 32, 7), ImageShape(1, 8, 8, 10), ImageShape(2, 5, 9, 3)], ids=str)
def test_a_net_can_be_built_for_images_of_any_size(name, shape):
    with torch.no_grad():
        logits = net(name, shape)(torch.randn(2, shape.channels, shape.height, shape.width))
    assert logits.shape == (2, shape.classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("name", "sides"), [("m3", range(26, 7, -2)), ("m5", range(24, 7, -4)), ("m7", range(22, 3, -6))]
)
def test_the_nets_of_an_never_pad_on_mnist(name, sides):
    maps, seen = torch.zeros(1, 1, 28, 28), []
    for layer in net(name):
        maps = layer(maps)
        seen += [tuple(maps.shape[2:])] * isinstance(layer, torch.nn.Conv2d)
    assert seen == [(side, side) for side in sides]


def test_a_convolution_pads_where_the_map_is_smaller_than_its_kernel():
    maps, seen = torch.zeros(1, 1, 8, 8), []
    for layer in net("m5", ImageShape(1, 8, 8, 10)):
        maps = layer(maps)
        if isinstance(layer, torch.nn.Conv2d):
            seen.append(maps.shape[2])
    assert seen == [4, 4, 4, 4, 4]


@pytest.mark.parametrize(("name", "height", "width"), [("m7", 20, 20), ("m5", 5, 9)])
def test_gradients_in_bfloat16_hold_nothing_that_lay_in_memory(name, height, width):
    """Freed memory is full of NaN here. By `torch.autocast` alone some of these rounds fail."""
    module = net(name, ImageShape(1, height, width, 10)).to(memory_format=torch.channels_last).train()
    pixels = torch.randn(16, 1, height, width).contiguous(memory_format=torch.channels_last)
    for _ in range(10):
        module.zero_grad()
        [torch.full((1 << size,), torch.nan) for size in range(12, 22) for _ in range(4)]
        with autocast(torch.device("cpu"), bf16=True):
            loss = module(pixels).float().square().mean()
        loss.backward()
        assert [key for key, value in module.named_parameters() if not value.grad.isfinite().all()] == []


def test_width_scales_every_layer():
    convolutions = [layer for layer in net("m3", width=0.5) if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == list(range(16, 89, 8))


def test_resnet_20_has_twenty_layers():
    layers = [m for m in net("preact-resnet20").modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert len([m for m in layers if getattr(m, "kernel_size", None) != (1, 1)]) == 20  # without the two shortcuts


def test_the_first_block_of_a_stage_takes_its_shortcut_after_the_activation():
    first, second = [layer for layer in net("preact-resnet20") if hasattr(layer, "shortcut")][:2]
    maps = -torch.ones(1, 16, 4, 4)
    for block in (first, second):
        torch.nn.init.zeros_(block.conv2.weight)  # nothing but the shortcut is left
    assert (first(maps) == 0).all()
    assert (second(maps) == -1).all()


# --- optimizer ----------------------------------------------------------------------------------------------------


def steps(stepper, module, count):
    """Take steps on a loss whose gradient is always 1 and return the weights and rates after each."""
    weights, rates = [], []
    for _ in range(count):
        stepper.zero_grad()
        module(torch.ones(1, 1)).sum().backward()
        stepper.step()
        weights.append(module.weight.item())
        rates.append(stepper._adam.param_groups[0]["lr"])
    return weights, rates


def test_the_average_is_that_of_a_hand_computation():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 1.0)
    stepper = build(AdamExponential(lr=0.01, final_factor=1.0), module, 3)
    # Adam moves by its rate where the gradient is constant.
    assert steps(stepper, module, 3)[0] == pytest.approx([0.99, 0.98, 0.97], abs=1e-6)
    stepper.eval()
    first = (2 * 1.0 + 9 * 0.99) / 11
    second = (3 * first + 9 * 0.98) / 12
    assert module.weight.item() == pytest.approx((4 * second + 9 * 0.97) / 13, abs=1e-6)
    stepper.train()
    assert module.weight.item() == pytest.approx(0.97, abs=1e-6)


def test_the_average_keeps_little_of_itself_at_first_and_never_more_than_asked():
    assert [kept_share(step, 0.999) for step in (1, 8, 8_990, 10**6)] == [2 / 11, 0.5, 8_991 / 9_000, 0.999]
    assert kept_share(10**6, 0.0) == 0


def test_without_averaging_the_weights_evaluated_are_those_in_training():
    module = torch.nn.Linear(1, 1, bias=False)
    stepper = build(AdamExponential(ema=0.0), module, 4)
    weights, _ = steps(stepper, module, 4)
    stepper.eval()
    assert module.weight.item() == weights[-1]


def test_statistics_of_batch_norm_are_not_averaged():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    stepper = build(AdamExponential(), module, 1)
    module(torch.randn(8, 2) + 5).square().sum().backward()
    stepper.step()
    statistics = module[1].running_mean.clone()
    stepper.eval()
    assert torch.equal(module[1].running_mean, statistics)


def test_the_rate_falls_a_little_at_every_step():
    module = torch.nn.Linear(1, 1, bias=False)
    _, rates = steps(build(AdamExponential(lr=0.01, final_factor=0.25), module, 4), module, 6)
    assert rates == pytest.approx([0.01 * 0.25 ** (step / 4) for step in (0, 1, 2, 3, 4, 4)])


def test_the_rate_falls_by_gamma_after_each_epoch():
    factor = decay(AdamExponential(final_factor=0.98**150, stairs=150), 150 * 459)
    found = [factor(epoch * 459 + step) for epoch in range(150) for step in (0, 458)]
    assert found == pytest.approx([0.98**epoch for epoch in range(150) for _ in range(2)])


def test_a_state_is_a_copy_and_settings_are_not_in_it():
    module = torch.nn.Linear(1, 1, bias=False)
    stepper = build(AdamExponential(lr=0.01), module, 100)
    steps(stepper, module, 2)
    state = stepper.state_dict()
    kept = state["moments"][0]["exp_avg"].clone(), state["others"][0].clone()
    other = build(AdamExponential(lr=0.005, final_factor=1.0), module, 100)
    other.load_state_dict(state)
    _, rates = steps(other, module, 1)
    assert rates == [0.005]
    steps(stepper, module, 3)
    assert torch.equal(state["moments"][0]["exp_avg"], kept[0])
    assert torch.equal(state["others"][0], kept[1])


def test_a_state_of_another_net_is_refused():
    one = build(AdamExponential(), torch.nn.Linear(1, 1), 1)
    other = build(AdamExponential(), torch.nn.Linear(1, 1, bias=False), 1)
    with pytest.raises(ValueError, match="zip"):
        one.load_state_dict(other.state_dict())


# --- recipes ------------------------------------------------------------------------------------------------------


def test_every_net_has_a_recipe():
    assert {path.stem for path in RECIPES} == MODELS.keys()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_fixes_everything_and_trains_the_published_net(path):
    text = path.read_text(encoding="utf-8")
    wanted, _ = loader.open_with(path, (), EVERYTHING)
    assert wanted.spec.name == path.stem
    assert list(wanted.spec.model) == [path.stem]
    assert wanted.spec.search.trials == 1
    assert [parameter for branch in wanted.space.branches() for parameter in branch.parameters] == []
    config = MODELS[path.stem].config
    assert config(**wanted.spec.model[path.stem]) == config()
    for said in ("# Published: ", "# Different here: ", "n = "):
        assert said in text


@pytest.mark.parametrize(("name", "gamma"), [("m3", 0.98), ("m5", 0.98), ("m7", 0.98), ("reference-net", 0.95)])
def test_a_recipe_multiplies_the_rate_by_gamma_after_each_epoch(name, gamma):
    wanted, _ = loader.open_with(ROOT / "experiments" / "records" / f"{name}.toml", (), EVERYTHING)
    config = AdamExponential(**wanted.spec.optimizer["adam-exponential"])
    epochs = wanted.space.epochs
    assert config.stairs == epochs
    assert config.final_factor == pytest.approx(gamma**epochs, abs=1e-8)
