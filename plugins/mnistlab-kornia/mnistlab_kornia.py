"""kornia's batch augmentations as transforms of mnistlab: on the device, with a value of its own for each image.

kornia (Riba et al. 2020, arXiv:1910.02190) draws from torch's global generators. Those are lent a seed from the
training's generator for each batch and given back as they were, so that a seed repeats the whole training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, cast

import torch
from pydantic import ConfigDict, Field, create_model
from torch import Tensor

from mnistlab.api import Choice, Config, Domain, Float, ImageShape, Int, Transform, TransformFn, hookimpl


class Setting(NamedTuple):
    """One field of a config: what is searched, what is tried first, and what it means."""

    domain: Domain
    default: Any
    meaning: str


@dataclass(frozen=True)
class Offered:
    """An augmentation: kornia's class, the settings, and how they become the class's arguments."""

    cls: str
    settings: Mapping[str, Setting]
    arguments: Callable[[Any], dict[str, Any]]


P = Setting(Float(0.0, 1.0), 0.5, "share of the images that are changed")
DEGREES = Setting(Float(0.0, 45.0), 10.0, "largest angle, either way")
SHEAR = Setting(Float(0.0, 30.0), 5.0, "largest slant in degrees, either way")
SHIFT = Setting(Float(0.0, 0.3), 0.1, "furthest move along each axis, as a share of the side")
KERNEL = Setting(Choice(3, 5, 7), 3, "side of the window in pixels")
RANGE = Setting(Float(0.05, 0.8), 0.3, "the factor lies between 1 - range and 1 + range")


def around_one(config: Any) -> tuple[float, float]:
    """Return the factors of a `range`."""
    return (1 - config.range, 1 + config.range)


OFFERED: dict[str, Offered] = {
    "affine": Offered(
        "RandomAffine",
        {
            "degrees": DEGREES,
            "translate": SHIFT,
            "zoom": Setting(Float(0.0, 0.4), 0.1, "the zoom lies between 1 - zoom and 1 + zoom"),
            "shear": SHEAR,
        },
        lambda c: {
            "degrees": c.degrees,
            "translate": (c.translate, c.translate),
            "scale": (1 - c.zoom, 1 + c.zoom),
            "shear": c.shear,
        },
    ),
    "rotation": Offered("RandomRotation", {"degrees": DEGREES}, lambda c: {"degrees": c.degrees}),
    "translate": Offered(
        "RandomTranslate",
        {"shift": SHIFT},
        lambda c: {"translate_x": (-c.shift, c.shift), "translate_y": (-c.shift, c.shift)},
    ),
    "shear": Offered("RandomShear", {"shear": SHEAR}, lambda c: {"shear": (-c.shear, c.shear)}),
    "perspective": Offered(
        "RandomPerspective",
        {"distortion": Setting(Float(0.05, 0.6), 0.2, "how far corners move, as a share of half a side")},
        lambda c: {"distortion_scale": c.distortion},
    ),
    "elastic": Offered(
        "RandomElasticTransform",
        {
            "sigma": Setting(Float(2.0, 8.0), 4.0, "smoothness: standard deviation of the blur in pixels"),
            "alpha": Setting(Float(0.05, 1.0, log=True), 0.3, "strength; 1 moves a pixel by half a side at most"),
        },
        lambda c: {"kernel_size": (15, 15), "sigma": (c.sigma, c.sigma), "alpha": (c.alpha, c.alpha)},
    ),
    "thin-plate-spline": Offered(
        "RandomThinPlateSpline",
        {"scale": Setting(Float(0.02, 0.3), 0.1, "how far the five control points move, as a share of half a side")},
        lambda c: {"scale": c.scale},
    ),
    "erasing": Offered(
        "RandomErasing",
        {"area": Setting(Float(0.03, 0.4), 0.2, "largest share of the image that is blanked; 0.02 is the smallest")},
        lambda c: {"scale": (0.02, c.area)},
    ),
    "gaussian-blur": Offered(
        "RandomGaussianBlur",
        {"kernel": KERNEL, "sigma": Setting(Float(0.2, 3.0), 1.0, "largest standard deviation in pixels, from 0.1")},
        lambda c: {"kernel_size": (c.kernel, c.kernel), "sigma": (0.1, c.sigma)},
    ),
    "box-blur": Offered("RandomBoxBlur", {"kernel": KERNEL}, lambda c: {"kernel_size": (c.kernel, c.kernel)}),
    "median-blur": Offered("RandomMedianBlur", {"kernel": KERNEL}, lambda c: {"kernel_size": (c.kernel, c.kernel)}),
    "motion-blur": Offered(
        "RandomMotionBlur",
        {"kernel": KERNEL, "angle": Setting(Float(1.0, 180.0), 45.0, "largest angle of the move in degrees")},
        lambda c: {"kernel_size": c.kernel, "angle": c.angle, "direction": (-1.0, 1.0)},
    ),
    "gaussian-noise": Offered(
        "RandomGaussianNoise",
        {"std": Setting(Float(0.01, 0.4), 0.1, "standard deviation, where black is 0 and white is 1")},
        lambda c: {"std": c.std},
    ),
    "salt-and-pepper": Offered(
        "RandomSaltAndPepperNoise",
        {"amount": Setting(Float(0.02, 0.3), 0.06, "largest share of the pixels, from 0.01")},
        lambda c: {"amount": (0.01, c.amount)},
    ),
    "brightness": Offered("RandomBrightness", {"range": RANGE}, lambda c: {"brightness": around_one(c)}),
    "contrast": Offered("RandomContrast", {"range": RANGE}, lambda c: {"contrast": around_one(c)}),
    "gamma": Offered("RandomGamma", {"range": RANGE}, lambda c: {"gamma": around_one(c)}),
    "sharpness": Offered(
        "RandomSharpness",
        {
            "sharpness": Setting(
                Float(0.5, 4.0), 2.0, "largest weight of the image against its blur: 0 blurs, 2 sharpens"
            )
        },
        lambda c: {"sharpness": c.sharpness},
    ),
    "posterize": Offered(
        "RandomPosterize",
        {"bits": Setting(Int(1, 7), 3, "fewest bits of a pixel, up to 8")},
        lambda c: {"bits": (c.bits, 8)},
    ),
    "solarize": Offered(
        "RandomSolarize",
        {"thresholds": Setting(Float(0.05, 0.45), 0.1, "how far from 0.5 the threshold lies that inverts above it")},
        lambda c: {"thresholds": c.thresholds},
    ),
    "horizontal-flip": Offered("RandomHorizontalFlip", {}, lambda _: {}),
    "vertical-flip": Offered("RandomVerticalFlip", {}, lambda _: {}),
}


@hookimpl
def mnistlab_transforms() -> list[Transform[Any]]:
    """Offer the augmentations, each as `kornia-NAME`."""
    return [_record(name, offered) for name, offered in OFFERED.items()]


def _record(name: str, offered: Offered) -> Transform[Any]:
    def build(config: Any, _shape: ImageShape) -> TransformFn:
        import kornia.augmentation  # noqa: PLC0415 - only whoever uses it waits for it

        cls = getattr(kornia.augmentation, offered.cls)
        return _seeded(cls(**offered.arguments(config), p=config.p, same_on_batch=False))

    summary = f"{offered.cls} of kornia, on whole batches."
    return Transform(name=f"kornia-{name}", config=_config(offered), build=build, summary=summary)


class _Made(Config):
    """Base of the configs that are made here: pydantic would look for the source text of each, for a long time."""

    model_config = ConfigDict(use_attribute_docstrings=False)


def _config(offered: Offered) -> type[Config]:
    fields = {
        name: (Annotated[type(default), domain], Field(default, description=meaning))
        for name, (domain, default, meaning) in {**offered.settings, "p": P}.items()
    }
    made = create_model(offered.cls, __base__=_Made, __module__=__name__, **cast("Any", fields))
    made.__doc__ = f"What kornia's {offered.cls} is given."
    return made


# --- drawing ----------------------------------------------------------------------------------------------------------


def _seeded(augmentation: Callable[[Tensor], Tensor]) -> TransformFn:
    def change(images: Tensor, generator: torch.Generator) -> Tensor:
        with _lent_seed(generator):
            return augmentation(images).clamp(0, 1)  # noise leaves the range that the next transform relies on

    return change


@contextmanager
def _lent_seed(generator: torch.Generator) -> Generator[None]:
    """Seed the global generators of the CPU and of `generator`'s device from it; give them back as they were.

    Not `torch.manual_seed`, which seeds those of all GPUs, of which some would not be given back.
    """
    device = generator.device
    seed = _seed(generator)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _seed(generator: torch.Generator) -> int:
    """Return a seed drawn from `generator`. On a GPU no value is read, which would wait."""
    if generator.device.type != "cuda":
        return int(torch.randint(2**62, (), generator=generator, device=generator.device))
    seed = random.Random(f"{generator.initial_seed()} {generator.get_offset()}").getrandbits(62)
    torch.rand((), generator=generator, device=generator.device)  # the next seed is another one
    return seed
