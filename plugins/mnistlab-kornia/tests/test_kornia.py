import subprocess
import sys

import kornia.augmentation
import mnistlab_kornia
import pytest
import torch

from mnistlab.api import ImageShape

MNIST = ImageShape(1, 28, 28, 10)
RECORDS = {record.name: record for record in mnistlab_kornia.mnistlab_transforms()}


def changed(name, images, seed=0, **settings):
    record = RECORDS[name]
    return record.build(record.config(**settings), MNIST)(images, torch.Generator().manual_seed(seed))


def test_p_is_the_share_of_images_that_are_changed():
    images = torch.eye(8)[None, None].repeat(400, 1, 1, 1)
    for p in (0.0, 0.25, 1.0):
        different = changed("kornia-horizontal-flip", images, p=p) != images
        assert float(different.flatten(1).any(1).double().mean()) == pytest.approx(p, abs=0.08)


@pytest.mark.parametrize("name", RECORDS)
def test_at_p_one_images_change_and_stay_between_black_and_white(name):
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    after = changed(name, images, p=1.0)
    assert not torch.equal(after, images)
    assert after.min() >= 0
    assert after.max() <= 1


@pytest.mark.parametrize("name", sorted(RECORDS.keys() - {"kornia-horizontal-flip", "kornia-vertical-flip"}))
def test_every_setting_reaches_kornia(name, monkeypatch):
    """Of what the search may ask for, the lowest and the highest value of each setting make another augmentation."""
    offered = mnistlab_kornia.OFFERED[name.removeprefix("kornia-")]
    config = RECORDS[name].config
    for field, (domain, _, _) in offered.settings.items():
        low, *_, high = domain.corners()
        assert offered.arguments(config(**{field: low})) != offered.arguments(config(**{field: high})), field


def test_images_get_the_values_that_kornia_draws():
    images = torch.rand(4, 1, 28, 28)
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(7)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = kornia.augmentation.RandomRotation(30.0, p=1.0, same_on_batch=False)(images)
    assert torch.equal(changed("kornia-rotation", images, seed=7, degrees=30.0, p=1.0), expected)


def test_every_setting_says_what_it_means():
    silent = [
        f"{n}.{f}" for n, r in RECORDS.items() for f, about in r.config.model_fields.items() if not about.description
    ]
    assert silent == []


@pytest.mark.e2e
def test_the_plugin_does_not_import_kornia_until_something_is_built():
    code = "import sys, mnistlab_kornia as m; m.mnistlab_transforms(); sys.exit('kornia' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
