import inspect

import mnistlab_torchvision
import pytest
import torch
from mnistlab_torchvision.models import ARCHITECTURES, Torchvision, working_size
from mnistlab_torchvision.transforms import EXCLUDED, OFFERED
from torchvision.transforms import v2

from mnistlab.api import ImageShape
from mnistlab.testing import ModelContract, TransformContract

SHAPES = [ImageShape(1, 28, 28, 10), ImageShape(3, 32, 32, 7), ImageShape(1, 8, 8, 10)]


class TestModels(ModelContract):
    plugin = mnistlab_torchvision
    fixed = {"torchvision": {"architecture": "shufflenet_v2_x0_5"}}
    samples = 1


class TestTransforms(TransformContract):
    plugin = mnistlab_torchvision
    samples = 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_takes_small_images(architecture):
    assert min(working_size(Torchvision(architecture=architecture), SHAPES[0])) >= 28


@pytest.mark.parametrize("architecture", ["regnet_x_400mf", "convnext_tiny", "squeezenet1_1", "vit_b_32"])
def test_families_that_are_adapted_in_their_own_way_classify(architecture):
    for shape in SHAPES:
        model = mnistlab_torchvision.build(Torchvision(architecture=architecture), shape).eval()
        with torch.inference_mode():
            assert model(torch.rand(2, shape.channels, shape.height, shape.width)).shape == (2, shape.classes)


def test_the_small_stem_keeps_the_resolution():
    assert working_size(Torchvision(architecture="resnet18"), SHAPES[0]) == (28, 28)
    small, original = (
        mnistlab_torchvision.build(Torchvision(architecture="resnet18", stem=stem), SHAPES[0]).model
        for stem in ("small", "original")
    )
    assert (small.conv1.stride, original.conv1.stride) == ((1, 1), (2, 2))
    assert isinstance(small.maxpool, torch.nn.Identity)


def test_every_transform_of_torchvision_is_offered_or_excluded_with_a_reason():
    classes = {name for name, cls in inspect.getmembers(v2, inspect.isclass) if issubclass(cls, v2.Transform)}
    assert classes - {"Transform"} == OFFERED.keys() | EXCLUDED.keys()
    assert not OFFERED.keys() & EXCLUDED.keys()


def test_settings_are_passed_on_and_a_wrong_one_is_told():
    (offered,) = [t for t in mnistlab_torchvision.records() if t.name == "v2-random-affine"]
    made = offered.build(offered.config(degrees=0.0, settings={"translate": [0.2, 0.2]}), SHAPES[0])
    images = torch.eye(28)[None, None].repeat(8, 1, 1, 1)
    moved = made(images, torch.Generator().manual_seed(0))
    assert not torch.equal(moved, images)
    with pytest.raises(ValueError, match=r"RandomAffine of torchvision refuses its settings: .*'colour'"):
        offered.build(offered.config(settings={"colour": 1}), SHAPES[0])
