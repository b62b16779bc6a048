import mnistlab_kornia
import pytest
import torch

from mnistlab.api import ImageShape
from mnistlab.testing import PluginContract


class TestContract(PluginContract):
    plugin = mnistlab_kornia
    samples = 2


def test_p_is_the_share_of_images_that_are_changed():
    (flip,) = [t for t in mnistlab_kornia.mnistlab_transforms() if t.name == "kornia-horizontal-flip"]
    images = torch.eye(8)[None, None].repeat(400, 1, 1, 1)
    for p in (0.0, 0.25, 1.0):
        changed = flip.build(flip.config(p=p), ImageShape(1, 8, 8, 2))(images, torch.Generator().manual_seed(0))
        share = float((changed != images).flatten(1).any(1).double().mean())
        assert share == pytest.approx(p, abs=0.08)
