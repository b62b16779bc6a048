import mnistlab_records
import pytest
import torch
from mnistlab_records.ema import AdamExponential, build

from mnistlab.api import ImageShape
from mnistlab.testing import PluginContract
from mnistlab.training import count_parameters

MNIST = ImageShape(1, 28, 28, 10)
MODELS = {model.name: model for model in mnistlab_records.mnistlab_models()}


class TestContract(PluginContract):
    plugin = mnistlab_records
    samples = 2
    shapes = (ImageShape(1, 20, 20, 10), ImageShape(3, 8, 8, 7))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("m3", 1_124_180), ("m5", 1_128_180), ("m7", 2_291_972), ("reference-net", 326_410), ("thrifty-net", 697)],
)
def test_the_nets_have_as_many_parameters_as_the_published_ones(name, parameters):
    module = MODELS[name].build(MODELS[name].config(), MNIST)
    assert count_parameters(module) == parameters


def test_resnet_20_has_twenty_layers():
    module = MODELS["preact-resnet20"].build(MODELS["preact-resnet20"].config(), MNIST)
    weighted = [m for m in module.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert len([m for m in weighted if getattr(m, "kernel_size", None) != (1, 1)]) == 20


def test_the_average_and_the_decay_are_the_published_ones():
    module = torch.nn.Linear(1, 1, bias=False)
    stepper = build(AdamExponential(lr=0.1, final_factor=0.25), module, 4)
    expected, rates = module.weight.detach().clone(), []
    for step in range(1, 5):
        stepper.zero_grad()
        module(torch.ones(1, 1)).sum().backward()
        stepper.step()
        rates.append(stepper._adam.param_groups[0]["lr"])
        decay = min(0.999, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.weight.detach()
    assert rates == pytest.approx([0.1 * 0.25 ** (step / 4) for step in range(4)])
    stepper.eval()
    torch.testing.assert_close(module.weight.detach(), expected)
