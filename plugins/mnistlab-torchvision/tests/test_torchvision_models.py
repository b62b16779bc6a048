import mnistlab_torchvision
import pytest
import torch
from mnistlab_torchvision.models import ARCHITECTURES, Torchvision, working_size
from torch import nn
from torchvision import models
from torchvision.models.regnet import BlockParams

from mnistlab.api import ImageShape

MNIST = ImageShape(1, 28, 28, 10)
SHAPES = (MNIST, ImageShape(3, 32, 32, 7), ImageShape(1, 8, 8, 10))
UNTRIED = ("regnet_", "vit_", "maxvit_t")  # their size is known without a try
FAMILIES = [
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t"),
    *("mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18"),
    *("shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_16"),
]


@pytest.fixture
def regnets_without_numbers(monkeypatch):
    """A RegNet computes its widths with tensors, which the meta device can't read: let it use the CPU for them."""
    plain = BlockParams.from_init_params.__func__

    def on_cpu(cls, *args, **settings):
        with torch.device("cpu"):
            return plain(cls, *args, **settings)

    monkeypatch.setattr(BlockParams, "from_init_params", classmethod(on_cpu))


def built(architecture, shape, **settings):
    """Build without numbers; return the module and two images."""
    with torch.device("meta"):
        module = mnistlab_torchvision.build(Torchvision(architecture=architecture, **settings), shape)
        return module, torch.empty(2, shape.channels, shape.height, shape.width)


def test_all_of_torchvisions_classification_models_are_offered():
    assert set(ARCHITECTURES) == set(models.list_models(module=models))
    assert len(ARCHITECTURES) >= 80


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[] if name in FAMILIES[::2] else pytest.mark.chaos)
        for number, name in enumerate(ARCHITECTURES)
    ],
    ids=ARCHITECTURES,
)
def test_every_architecture_classifies_every_shape(number, regnets_without_numbers):
    """Each shape is tried by the search for a size, or else here; one of them is also gone through from end to end."""
    architecture = ARCHITECTURES[number]
    through = SHAPES if architecture.startswith(UNTRIED) else (SHAPES[number % len(SHAPES)],)
    for shape in SHAPES:
        size = working_size(architecture, "small", (shape.height, shape.width))
        assert min(size) >= min(shape.height, shape.width)
    for shape in through:
        module, images = built(architecture, shape)
        with torch.no_grad():
            assert module.eval()(images).shape == (2, shape.classes)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_of_every_family_each_parameter_is_trained_and_dropout_stands_before_the_last_layer(
    architecture, regnets_without_numbers
):
    module, images = built(architecture, MNIST, dropout=0.4)
    module.train()(images).sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []
    before, last = [part for part in module.modules() if isinstance(part, (nn.Dropout, nn.Linear, nn.Conv2d))][-2:]
    assert isinstance(before, nn.Dropout)
    assert before.p == 0.4
    assert (last.out_features if isinstance(last, nn.Linear) else last.out_channels) == 10


@pytest.mark.parametrize(
    "architecture", ["convnext_tiny", "squeezenet1_1", pytest.param("vit_b_16", marks=pytest.mark.chaos), "googlenet"]
)
def test_families_that_are_adapted_in_their_own_way_classify(architecture):
    for shape in SHAPES:
        module = mnistlab_torchvision.build(Torchvision(architecture=architecture), shape).eval()
        with torch.inference_mode():
            found = module(torch.rand(2, shape.channels, shape.height, shape.width))
        assert found.shape == (2, shape.classes)
        assert found.isfinite().all()


@pytest.mark.parametrize(
    ("architecture", "side"),
    [
        *(("resnet18", 28), ("convnext_tiny", 32), ("inception_v3", 48), ("maxvit_t", 224)),
        *(("vit_b_16", 64), ("vit_b_32", 128), ("vit_h_14", 56)),  # four patches along a side
    ],
)
def test_images_are_enlarged_no_further_than_needed(architecture, side):
    assert working_size(architecture, "small", (28, 28)) == (side, side)


def test_the_small_stem_keeps_the_resolution():
    small, original = (built("resnet18", MNIST, stem=stem)[0].model for stem in ("small", "original"))
    assert (small.conv1.stride, original.conv1.stride) == ((1, 1), (2, 2))
    assert isinstance(small.maxpool, nn.Identity)
    assert isinstance(original.maxpool, nn.MaxPool2d)


@pytest.mark.parametrize("architecture", ["vgg11", "convnext_tiny"])
def test_a_stem_that_does_not_shrink_the_image_by_a_stride_is_left_alone(architecture):
    small, original = (str(built(architecture, MNIST, stem=stem)[0]) for stem in ("small", "original"))
    assert small == original


def test_an_architecture_that_works_at_no_size_says_why(monkeypatch):
    monkeypatch.setattr("mnistlab_torchvision.models.SIZES", (16,))
    working_size.cache_clear()
    with pytest.raises(ValueError, match=r"inception_v3 works at no size from \(8, 8\) to 16 pixels: .*[Kk]ernel size"):
        working_size("inception_v3", "small", (8, 8))
    working_size.cache_clear()


def test_patterns_choose_among_architectures(lab):
    lab.write("x.toml", 'name = "x"\n[data]\ndataset = "digits"\n[model.torchvision]\narchitecture = "resnet1*"\n')
    ran = lab.run("check", "x.toml")
    assert ran.code == 0, ran.err
    assert "one of resnet101, resnet152, resnet18" in ran.out
