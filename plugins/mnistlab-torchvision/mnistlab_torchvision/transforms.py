"""`torchvision.transforms.v2` in mnistlab: a record for each class that keeps an image's form.

v2 draws once per call from torch's global generator. Here each image is a call of its own, and the global generator is
lent a seed from the training's generator, so values differ per image and a seed repeats them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, cast

import torch
from pydantic import create_model
from torch import Tensor
from torchvision.transforms import v2

from mnistlab.api import Choice, Config, Domain, Float, ImageShape, Int, Transform, TransformFn

Settings = dict[str, tuple[Domain, Any]]
P: Settings = {"p": (Float(0.0, 1.0), 0.5)}

# The settings that are searched, with domain and default; all others are passed on by the table `settings`.
OFFERED: dict[str, Settings] = {
    "AugMix": {"severity": (Int(1, 10), 3), "mixture_width": (Int(1, 4), 3)},
    "ColorJitter": {"brightness": (Float(0.0, 0.9), 0.3), "contrast": (Float(0.0, 0.9), 0.3)},
    "ElasticTransform": {"alpha": (Float(1.0, 60.0, log=True), 20.0), "sigma": (Float(1.0, 6.0), 4.0)},
    "GaussianBlur": {"kernel_size": (Choice(3, 5, 7), 3)},
    "GaussianNoise": {"sigma": (Float(0.0, 0.3), 0.1)},
    "RandAugment": {"num_ops": (Int(1, 4), 2), "magnitude": (Int(0, 30), 9)},
    "RandomAdjustSharpness": {"sharpness_factor": (Float(0.0, 4.0), 2.0), **P},
    "RandomAffine": {"degrees": (Float(0.0, 45.0), 10.0)},
    "RandomAutocontrast": P,
    "RandomCrop": {"padding": (Int(1, 6), 2)},
    "RandomEqualize": P,
    "RandomErasing": P,
    "RandomHorizontalFlip": P,
    "RandomInvert": P,
    "RandomPerspective": {"distortion_scale": (Float(0.05, 0.6), 0.2), **P},
    "RandomPosterize": {"bits": (Int(1, 7), 4), **P},
    "RandomResizedCrop": {},
    "RandomRotation": {"degrees": (Float(0.0, 45.0), 10.0)},
    "RandomSolarize": {"threshold": (Float(0.0, 1.0), 0.5), **P},
    "RandomVerticalFlip": P,
    "TrivialAugmentWide": {},
}

_BOXES = "works on bounding boxes or key points"
_FORM = "changes the shape or the type of an image"
_PARTS = "takes other transforms, functions or tensors, which an experiment file can't hold"
_LABELS = "mixes labels, and a transform sees images only"
_NOTHING = "draws nothing, and the training does what it would do"
_COLOUR = "works on the colours of three channels only"

EXCLUDED: dict[str, str] = {
    **dict.fromkeys(("ClampBoundingBoxes", "ClampKeyPoints", "ConvertBoundingBoxFormat"), _BOXES),
    **dict.fromkeys(("RandomIoUCrop", "SanitizeBoundingBoxes", "SanitizeKeyPoints", "SetClampingMode"), _BOXES),
    **dict.fromkeys(("CenterCrop", "FiveCrop", "Pad", "RandomResize", "RandomShortestSize"), _FORM),
    **dict.fromkeys(("RandomZoomOut", "Resize", "ScaleJitter", "TenCrop", "UniformTemporalSubsample"), _FORM),
    **dict.fromkeys(("ConvertImageDtype", "PILToTensor", "ToDtype", "ToImage", "ToPILImage", "ToTensor"), _FORM),
    **dict.fromkeys(("Compose", "Lambda", "LinearTransformation", "RandomApply"), _PARTS),
    **dict.fromkeys(("RandomChoice", "RandomOrder"), _PARTS),
    **dict.fromkeys(("CutMix", "MixUp"), _LABELS),
    **dict.fromkeys(("Identity", "Normalize", "ToPureTensor"), _NOTHING),
    **dict.fromkeys(("AutoAugment", "Grayscale", "RGB", "RandomGrayscale"), _COLOUR),
    **dict.fromkeys(("RandomChannelPermutation", "RandomPhotometricDistort"), _COLOUR),
    "JPEG": "compresses uint8 images only",
}

SIZED = ("RandomCrop", "RandomResizedCrop")  # these get the images' own size


def record_name(cls: str) -> str:
    """Return for example `v2-random-affine` for RandomAffine."""
    return "v2-" + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls).lower()


def records() -> list[Transform[Any]]:
    """Return a record for each class that is offered."""
    return [_record(cls, settings) for cls, settings in OFFERED.items()]


def _record(cls: str, settings: Settings) -> Transform[Any]:
    def build(config: Config, shape: ImageShape) -> TransformFn:
        return _per_image(_made(cls, config, shape))

    summary = f"{cls} of torchvision.transforms.v2."
    return Transform(name=record_name(cls), config=_config(cls, settings), build=build, summary=summary)


def _config(cls: str, settings: Settings) -> type[Config]:
    """Return a config with the searched settings and, for everything else, a table that is passed on as it is."""
    fields = {name: (Annotated[type(default), domain], default) for name, (domain, default) in settings.items()}
    made = create_model(cls, __base__=Config, __module__=__name__, settings=(dict[str, Any], {}), **cast("Any", fields))
    made.__doc__ = f"What {cls} can be set to; `settings` takes all its other arguments."
    return made


def _made(cls: str, config: Config, shape: ImageShape) -> Callable[[Tensor], Tensor]:
    """Return the transform itself.

    Raises:
        ValueError: if torchvision refuses the settings; the message is its own.
    """
    arguments = config.model_dump()
    arguments |= arguments.pop("settings")
    if cls in SIZED:
        arguments["size"] = (shape.height, shape.width)
    if cls == "ElasticTransform":  # its blur may not be wider than the image: 4 sigma on each side
        arguments["sigma"] = min(arguments["sigma"], (min(shape.height, shape.width) - 1) / 4 - 0.25)
    try:
        return getattr(v2, cls)(**arguments)
    except TypeError as error:
        raise ValueError(f"{cls} of torchvision refuses its settings: {error}") from None


def _per_image(transform: Callable[[Tensor], Tensor]) -> TransformFn:
    def change(images: Tensor, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator, device=images.device))
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            torch.manual_seed(seed)
            return torch.stack([transform(image) for image in images])

    return change
