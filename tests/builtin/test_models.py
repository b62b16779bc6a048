"""What the contract of all plugins (see test_contracts) does not know of the built-in models."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mnistlab.api import Config, ImageShape, Int, domains
from mnistlab.builtin.models import mnistlab_models
from mnistlab.builtin.models.cnn import Cnn, build_cnn
from mnistlab.builtin.models.lenet import LeNet, build_lenet
from mnistlab.builtin.models.resnet import ResNet, build_resnet
from mnistlab.builtin.models.vit import Vit, build_vit
from mnistlab.errors import SpecError

MODELS = {model.name: model for model in mnistlab_models()}
MNIST = ImageShape(1, 28, 28, 10)
SHAPES = [MNIST, ImageShape(3, 32, 32, 7), ImageShape(1, 8, 8, 10)]
ONE_EPOCH_NET = Cnn(
    depth=2, channels=24, growth=4 / 3, stem_kernel=5, kernel=3, padding="valid",
    batch_norm=False, dropout=0.0, pool="before", head_width=256,
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def corners(config: type[Config]) -> list[Config]:
    return [config(**{name: value}) for name, domain in domains(config).items() for value in domain.corners()]


def samples(config: type[Config], count: int) -> list[Config]:
    """Return random corners of the whole domain; widths stay at their lower end, to keep the tests quick."""
    draw = random.Random(7)

    def pick(domain):
        wide = isinstance(domain, Int) and domain.log
        return domain.low if wide else draw.choice(domain.corners())

    return [config(**{name: pick(domain) for name, domain in domains(config).items()}) for _ in range(count)]


def images(shape: ImageShape, count: int = 3) -> torch.Tensor:
    return torch.randn(count, shape.channels, shape.height, shape.width)


def check(module: nn.Module, shape: ImageShape) -> None:
    """A forward and a backward pass in channels_last, as the training does it."""
    module.to(memory_format=torch.channels_last)
    logits = module(images(shape).contiguous(memory_format=torch.channels_last))
    assert logits.shape == (3, shape.classes)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    cross_entropy(logits, torch.arange(3) % shape.classes).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model", MODELS.values(), ids=lambda m: m.name)
def test_builds_and_learns_at_its_defaults(model, shape):
    module = model.build(model.config(), shape)
    check(module, shape)
    assert all(p.grad.abs().sum() > 0 for p in module.parameters()), "a parameter that gets no gradient is not used"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model", MODELS.values(), ids=lambda m: m.name)
def test_builds_at_the_edges_of_its_domain(model, shape):
    for config in corners(model.config) + samples(model.config, 6):
        check(model.build(config, shape), shape)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda m: m.name)
def test_every_setting_can_be_searched(model):
    """The contract lets a plugin have settings without a domain; a built-in one would silently never be searched."""
    assert set(domains(model.config)) == set(model.config.model_fields)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda m: m.name)
def test_an_image_that_is_too_small_is_refused_in_words(model):
    with pytest.raises(SpecError) as caught:
        model.build(model.config(), ImageShape(1, 28, 7, 1))
    text = str(caught.value)
    assert f"model.{model.name}" in text
    assert "width >= 8 (got 7)" in text
    assert "classes >= 2 (got 1)" in text


def test_cnn_can_be_the_net_that_learns_mnist_in_one_epoch():
    module = build_cnn(ONE_EPOCH_NET, MNIST)
    assert count(module) == 215_194
    kinds = [type(m).__name__ for m in module]
    stage = ["Conv2d", "MaxPool2d", "ReLU"]
    assert kinds == [*stage, *stage, "Flatten", "Linear", "ReLU", "Linear"]


def test_cnn_pooling_before_relu_is_the_same_function():
    before = build_cnn(ONE_EPOCH_NET, MNIST)
    after = build_cnn(ONE_EPOCH_NET.model_copy(update={"pool": "after"}), MNIST)
    ordered = [m for m in after if not isinstance(m, (nn.MaxPool2d, nn.ReLU))]
    for source, target in zip([m for m in before if not isinstance(m, (nn.MaxPool2d, nn.ReLU))], ordered, strict=True):
        target.load_state_dict(source.state_dict())
    batch = images(MNIST)
    torch.testing.assert_close(before(batch), after(batch))


def test_cnn_growth_is_rounded_to_the_nearest_integer():
    module = build_cnn(Cnn(depth=4, channels=10, growth=1.25), MNIST)
    assert [m.out_channels for m in module if isinstance(m, nn.Conv2d)] == [10, 12, 16, 20]


def test_cnn_stops_pooling_before_the_map_vanishes():
    module = build_cnn(Cnn(depth=4), ImageShape(1, 8, 8, 10))
    assert sum(isinstance(m, nn.MaxPool2d) for m in module) == 2
    assert module[:-3](images(ImageShape(1, 8, 8, 10))).shape[2:] == (2, 2)


def test_lenet_has_the_size_of_the_paper():
    assert count(build_lenet(LeNet(), MNIST)) == 61_706


def test_resnet_halves_its_map_from_stage_to_stage():
    module = build_resnet(ResNet(stages=3, stem_stride=1, width=8), MNIST)
    features = nn.Sequential(*list(module)[:4])
    assert features(images(MNIST)).shape == (3, 32, 7, 7)


def test_vit_sees_every_pixel_also_where_patches_do_not_divide_the_image():
    shape = ImageShape(1, 30, 25, 10)
    module = build_vit(Vit(patch=7), shape)
    batch = images(shape).requires_grad_()
    module(batch).sum().backward()
    assert (batch.grad.abs().sum(dim=(0, 1)) > 0).all()


def test_vit_attention_is_the_same_in_float32_and_within_autocast():
    module = build_vit(Vit(), MNIST).eval()
    batch = images(MNIST)
    with torch.no_grad():
        exact = module(batch)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = module(batch)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.1, atol=0.05)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
