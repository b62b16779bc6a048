"""kornia's batch augmentations as transforms of mnistlab: on the device, with a value of its own for each image.

kornia (Riba et al. 2020, arXiv:1910.02190) draws from torch's global generator. That is lent a seed from the training's
generator for each batch and given back as it was, so that a seed repeats the whole training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

import torch
from pydantic import create_model
from torch import Tensor

from mnistlab.api import Choice, Config, Domain, Float, ImageShape, Int, Transform, TransformFn, hookimpl

Settings = Mapping[str, tuple[Domain, Any]]
Arguments = Callable[[Any], dict[str, Any]]
KERNEL: tuple[Domain, Any] = (Choice(3, 5, 7), 3)

# record: (kornia's class, settings with domain and default, how they become the class's arguments)
OFFERED: dict[str, tuple[str, Settings, Arguments]] = {
    "affine": (
        "RandomAffine",
        {
            "degrees": (Float(0.0, 45.0), 10.0),
            "translate": (Float(0.0, 0.3), 0.1),
            "zoom": (Float(0.0, 0.4), 0.1),
            "shear": (Float(0.0, 30.0), 5.0),
        },
        lambda c: {
            "degrees": c.degrees,
            "translate": (c.translate, c.translate),
            "scale": (1 - c.zoom, 1 + c.zoom),
            "shear": c.shear,
        },
    ),
    "rotation": ("RandomRotation", {"degrees": (Float(0.0, 45.0), 10.0)}, lambda c: {"degrees": c.degrees}),
    "shear": ("RandomShear", {"shear": (Float(0.0, 30.0), 10.0)}, lambda c: {"shear": (-c.shear, c.shear)}),
    "perspective": (
        "RandomPerspective",
        {"distortion": (Float(0.05, 0.6), 0.2)},
        lambda c: {"distortion_scale": c.distortion},
    ),
    "elastic": (
        "RandomElasticTransform",
        {"sigma": (Float(2.0, 8.0), 4.0), "alpha": (Float(0.05, 1.0, log=True), 0.3)},
        lambda c: {"kernel_size": (15, 15), "sigma": (c.sigma, c.sigma), "alpha": (c.alpha, c.alpha)},
    ),
    "thin-plate-spline": ("RandomThinPlateSpline", {"scale": (Float(0.02, 0.3), 0.1)}, lambda c: {"scale": c.scale}),
    "erasing": ("RandomErasing", {"area": (Float(0.03, 0.4), 0.2)}, lambda c: {"scale": (0.02, c.area)}),
    "gaussian-blur": (
        "RandomGaussianBlur",
        {"kernel": KERNEL, "sigma": (Float(0.2, 3.0), 1.0)},
        lambda c: {"kernel_size": (c.kernel, c.kernel), "sigma": (0.1, c.sigma)},
    ),
    "box-blur": ("RandomBoxBlur", {"kernel": KERNEL}, lambda c: {"kernel_size": (c.kernel, c.kernel)}),
    "median-blur": ("RandomMedianBlur", {"kernel": KERNEL}, lambda c: {"kernel_size": (c.kernel, c.kernel)}),
    "motion-blur": (
        "RandomMotionBlur",
        {"kernel": KERNEL, "angle": (Float(1.0, 180.0), 45.0)},
        lambda c: {"kernel_size": c.kernel, "angle": c.angle, "direction": (-1.0, 1.0)},
    ),
    "gaussian-noise": ("RandomGaussianNoise", {"std": (Float(0.01, 0.4), 0.1)}, lambda c: {"std": c.std}),
    "salt-and-pepper": (
        "RandomSaltAndPepperNoise",
        {"amount": (Float(0.02, 0.3), 0.06)},
        lambda c: {"amount": (0.01, c.amount)},
    ),
    "brightness": (
        "RandomBrightness",
        {"range": (Float(0.05, 0.8), 0.3)},
        lambda c: {"brightness": (1 - c.range, 1 + c.range)},
    ),
    "contrast": (
        "RandomContrast",
        {"range": (Float(0.05, 0.8), 0.3)},
        lambda c: {"contrast": (1 - c.range, 1 + c.range)},
    ),
    "gamma": ("RandomGamma", {"range": (Float(0.05, 0.8), 0.3)}, lambda c: {"gamma": (1 - c.range, 1 + c.range)}),
    "sharpness": ("RandomSharpness", {"sharpness": (Float(0.1, 2.0), 0.5)}, lambda c: {"sharpness": c.sharpness}),
    "posterize": ("RandomPosterize", {"bits": (Int(1, 7), 3)}, lambda c: {"bits": (c.bits, 8)}),
    "solarize": ("RandomSolarize", {"thresholds": (Float(0.05, 0.45), 0.1)}, lambda c: {"thresholds": c.thresholds}),
    "horizontal-flip": ("RandomHorizontalFlip", {}, lambda _: {}),
    "vertical-flip": ("RandomVerticalFlip", {}, lambda _: {}),
}


@hookimpl
def mnistlab_transforms() -> list[Transform[Any]]:
    """Offer the augmentations, each as `kornia-NAME`."""
    return [_record(name, *parts) for name, parts in OFFERED.items()]


def _record(name: str, cls: str, settings: Settings, arguments: Arguments) -> Transform[Any]:
    def build(config: Config, _shape: ImageShape) -> TransformFn:
        import kornia.augmentation  # noqa: PLC0415 - only whoever uses it waits for it

        p: float = config.p  # type: ignore[attr-defined]
        return _seeded(getattr(kornia.augmentation, cls)(**arguments(config), p=p, same_on_batch=False))

    summary = f"{cls} of kornia, on whole batches."
    return Transform(name=f"kornia-{name}", config=_config(cls, settings), build=build, summary=summary)


def _config(cls: str, settings: Settings) -> type[Config]:
    """Return a config with the settings and `p`, the share of images that are changed."""
    with_p = {**settings, "p": (Float(0.0, 1.0), 0.5)}
    fields = {name: (Annotated[type(default), domain], default) for name, (domain, default) in with_p.items()}
    return create_model(cls, __base__=Config, __module__=__name__, **cast("Any", fields))


def _seeded(augmentation: Callable[[Tensor], Tensor]) -> TransformFn:
    def change(images: Tensor, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator, device=images.device))
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            torch.manual_seed(seed)
            return augmentation(images)

    return change
