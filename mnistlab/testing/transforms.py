"""The contract of transforms."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from mnistlab.api import Config, ImageShape, Transform
from mnistlab.plugins.registry import Offer
from mnistlab.testing.base import Contract
from mnistlab.testing.traces import at, undisturbed

IDENTICAL = 64


def pictures(shape: ImageShape, count: int) -> Tensor:
    """Return smooth pictures in [0, 1], float32 (count, C, H, W): noise alone would hide what moves."""
    drawn = torch.rand(count, shape.channels, 5, 5, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(drawn, (shape.height, shape.width), mode="bilinear")


def apply(offer: Offer, config: Config, pixels: Tensor, shape: ImageShape, seed: int = 0) -> Tensor:
    """Build and apply a transform to a copy of `pixels`, with a generator of its own.

    Without the copy, one that writes into its input would hand out the same tensor twice and seem to repeat itself.
    """
    return apply_to(offer, config, pixels.clone(), shape, seed)


def apply_to(offer: Offer, config: Config, pixels: Tensor, shape: ImageShape, seed: int = 0) -> Tensor:
    """Build and apply a transform to `pixels` themselves."""
    with at(f"{offer.name} at {config!r} for {shape}"):
        made = cast("Transform[Config]", offer.record).build(config, shape)
        return made(pixels, torch.Generator(pixels.device).manual_seed(seed))


class TransformContract(Contract):
    """What every transform must keep. Each test that takes `transform` runs once for each transform of the plugin."""

    def test_transform_keeps_form_everywhere_in_its_domain(self, transform: Offer) -> None:
        """At every point and for every shape: same shape, dtype and device, finite values."""
        for config in self.points(transform):
            for shape in self.shapes:
                before = pictures(shape, 3)
                check_form(
                    before, apply(transform, config, before, shape), f"{transform.name} at {config!r} for {shape}"
                )

    def test_transform_takes_a_single_image(self, transform: Offer) -> None:
        """A batch of one is a batch."""
        for shape in self.shapes:
            before = pictures(shape, 1)
            check_form(before, apply(transform, self.point(transform), before, shape), f"{transform.name} for {shape}")

    def test_transform_leaves_its_input_alone(self, transform: Offer) -> None:
        """The images that it is given are not written into."""
        for config in self.points(transform):
            before = pictures(self.shapes[0], 4)
            kept = before.clone()
            apply_to(transform, config, before, self.shapes[0])
            assert torch.equal(before, kept), f"{transform.name} at {config!r} changes the images that it is given"

    def test_transform_draws_for_each_image(self, transform: Offer) -> None:
        """Of many identical images, at some point of its domain, not all come out alike."""
        same = pictures(self.shapes[0], 1).expand(IDENTICAL, -1, -1, -1).contiguous()
        varied = any(_varies(apply(transform, config, same, self.shapes[0])) for config in self.points(transform))
        if transform.name in self.deterministic:
            assert not varied, f"{transform.name} is said to be deterministic, but identical images come out different"
        else:
            assert varied, (
                f"{transform.name}: all of {IDENTICAL} identical images come out alike; draw a value per image"
            )

    def test_transform_draws_only_from_its_generator(self, transform: Offer) -> None:
        """The same state of the generator gives the same images, whatever the global generators hold or lose."""
        for config in self.points(transform):
            pixels = pictures(self.shapes[0], 8)
            with undisturbed(f"{transform.name} at {config!r}"):
                first = apply(transform, config, pixels, self.shapes[0], seed=3)
            torch.manual_seed(99)
            again = apply(transform, config, pixels, self.shapes[0], seed=3)
            assert torch.equal(first, again), f"{transform.name} at {config!r}: the same generator gives other images"

    def test_transform_obeys_its_generator(self, transform: Offer) -> None:
        """At some point of its domain, another seed gives other images."""
        pixels = pictures(self.shapes[0], 8)
        obeys = any(
            not torch.equal(*(apply(transform, config, pixels, self.shapes[0], seed) for seed in (1, 2)))
            for config in self.points(transform)
        )
        assert obeys or transform.name in self.deterministic, f"{transform.name}: its generator makes no difference"


def check_form(before: Tensor, after: Tensor, where: str) -> None:
    """Fail unless `after` is a tensor of the form of `before` and finite."""
    assert isinstance(after, Tensor), f"{where}: images must come out, not {type(after).__name__}"  # pyright: ignore[reportUnnecessaryIsInstance] - a stranger's code
    for what in ("shape", "dtype", "device"):
        old, new = getattr(before, what), getattr(after, what)
        assert old == new, f"{where}: the {what} must stay {old}, but became {new}"
    assert after.isfinite().all(), f"{where}: pixels must be finite"


def _varies(pixels: Tensor) -> bool:
    return bool((pixels != pixels[:1]).any())
