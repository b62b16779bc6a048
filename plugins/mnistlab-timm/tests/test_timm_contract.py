import random

import mnistlab_timm
import pytest
import timm
import torch
from mnistlab_timm import Timm, working_size

from mnistlab.api import ImageShape
from mnistlab.testing import ModelContract, PluginContract

MNIST = ImageShape(1, 28, 28, 10)
SPREAD = sorted(random.Random(0).sample(timm.list_models(), 20))


class TestConvolutions(PluginContract):
    plugin = mnistlab_timm
    fixed = {"timm": {"architecture": "resnet10t"}}


class TestTransformer(ModelContract):
    plugin = mnistlab_timm
    fixed = {"timm": {"architecture": "vit_tiny_patch16_224"}}
    shapes = (ImageShape(3, 8, 8, 5),)


@pytest.mark.parametrize(
    "architecture",
    [*SPREAD[::4], *(pytest.param(name, marks=pytest.mark.chaos) for name in SPREAD if name not in SPREAD[::4])],
)
def test_architectures_from_all_over_the_registry_take_small_images(architecture):
    size, _ = working_size(Timm(architecture=architecture), MNIST)
    assert min(size) >= 28


@pytest.mark.parametrize(
    "architecture", ["mobilenetv3_small_050", "convnext_atto", "mixer_s32_224", "swinv2_tiny_window8_256"]
)
def test_families_that_are_enlarged_in_their_own_way_classify(architecture):
    model = mnistlab_timm.build(Timm(architecture=architecture), MNIST).eval()
    with torch.inference_mode():
        assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_a_transformer_sees_more_than_one_patch():
    assert working_size(Timm(architecture="vit_tiny_patch16_224"), MNIST) == ((64, 64), True)


def test_rates_are_passed_on_and_refused_where_they_are_unknown():
    model = mnistlab_timm.build(Timm(architecture="resnet10t", drop_rate=0.25), MNIST)
    assert model.model.drop_rate == 0.25
    with pytest.raises(ValueError, match=r"timm's vgg11 works at no size .*'drop_path_rate'"):
        mnistlab_timm.build(Timm(architecture="vgg11", drop_path_rate=0.1), MNIST)


def test_patterns_choose_from_the_registry(lab):
    lab.write("x.toml", 'name = "x"\n[data]\ndataset = "digits"\n[model.timm]\narchitecture = "resnet1?t"\n')
    ran = lab.run("check", "x.toml")
    assert ran.code == 0, ran.err
    assert "one of resnet10t, resnet14t" in ran.out
