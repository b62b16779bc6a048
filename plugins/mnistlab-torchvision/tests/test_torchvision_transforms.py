import inspect

import mnistlab_torchvision
import pytest
import torch
from mnistlab_torchvision.transforms import COLOURED, EXCLUDED, OFFERED, record_name
from pydantic import ValidationError
from torchvision.transforms import v2

from mnistlab.api import ImageShape

MNIST = ImageShape(1, 28, 28, 10)
RECORDS = {record.name: record for record in mnistlab_torchvision.mnistlab_transforms()}


def made(name, shape=MNIST, **settings):
    record = RECORDS[name]
    return record.build(record.config(**settings), shape)


def test_every_transform_of_torchvision_is_offered_or_excluded_with_a_reason():
    classes = {name for name, cls in inspect.getmembers(v2, inspect.isclass) if issubclass(cls, v2.Transform)}
    assert classes - {"Transform"} <= OFFERED.keys() | EXCLUDED.keys()
    assert not OFFERED.keys() & EXCLUDED.keys()
    assert RECORDS.keys() == {record_name(cls) for cls in OFFERED}
    assert all(EXCLUDED.values())


@pytest.mark.parametrize("cls", OFFERED)
def test_a_config_has_the_arguments_of_its_class(cls):
    arguments = set(inspect.signature(getattr(v2, cls)).parameters)
    fields = set(RECORDS[record_name(cls)].config.model_fields)
    assert fields <= arguments
    assert arguments - fields <= {"size", "expand", "inplace", "num_output_channels"}


def test_arguments_reach_torchvision():
    images = torch.eye(28)[None, None].repeat(8, 1, 1, 1)
    moved = made("v2-random-affine", degrees=0.0, translate=[0.2, 0.2])(images, torch.Generator().manual_seed(0))
    still = made("v2-random-affine", degrees=0.0)(images, torch.Generator().manual_seed(0))
    assert not torch.equal(moved, images)
    assert torch.equal(still, images)


def test_images_get_the_values_that_torchvision_draws_one_after_the_other():
    images, generator = torch.rand(3, 1, 28, 28), torch.Generator().manual_seed(5)
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(5)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.stack([v2.RandomRotation(degrees=30.0)(image) for image in images])
    assert torch.equal(made("v2-random-rotation", degrees=30.0)(images, generator), expected)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("v2-random-affine", {"translate": [2.0, 0.0]}, "RandomAffine of torchvision refuses .* between 0 and 1"),
        ("v2-random-affine", {"colour": 1}, "colour\n.*not permitted"),
        ("v2-random-rotation", {"interpolation": "lanczos"}, "'nearest' or 'bilinear'"),
        ("v2-auto-augment", {"policy": "mnist"}, "AutoAugment of torchvision refuses .* 'mnist' is not a valid"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_trained(name, settings, said):
    with pytest.raises(ValidationError, match=said):
        RECORDS[name].config(**settings)


@pytest.mark.parametrize("cls", COLOURED)
def test_what_changes_colours_only_refuses_grey_images(cls):
    with pytest.raises(ValueError, match=f"{cls} changes colours only, and these images have 1 channel"):
        made(record_name(cls))


def test_an_experiment_that_torchvision_refuses_is_told_by_check(lab):
    transform = "[transform.v2-random-affine]\ntranslate = [2.0, 0.0]\n"
    lab.write("x.toml", f'name = "x"\n[data]\ndataset = "digits"\n[model.mlp]\n{transform}')
    ran = lab.run("check", "x.toml")
    assert ran.code == 2
    assert "translation values should be between 0 and 1" in ran.err
