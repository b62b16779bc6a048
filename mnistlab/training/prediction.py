"""What a model that says nothing else is trained with and asked, and whether its answer fits the dataset."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from mnistlab.api import Batch, C, ImageShape, LossFn, Model, Prediction
from mnistlab.errors import PluginError

OWN_METRICS = ("loss", "accuracy")  # of the validation images; a measure of the same name would hide one


def cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of the module's logits, in nats."""
    return _mean_loss(module(batch.images), batch)


def cross_entropy_over(classes: int) -> LossFn:
    """Return `cross_entropy` that refuses a module whose logits are not one for each of `classes`.

    The loss itself would take too many without a word, and too few would end the process on a GPU.
    """

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        logits = module(batch.images)
        require_logits(logits, len(batch.images), classes)
        return _mean_loss(logits, batch)

    return loss


def _mean_loss(logits: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(logits.float(), batch.labels, label_smoothing=batch.label_smoothing)


def point_prediction(module: nn.Module, images: Tensor) -> Prediction:
    """Return the module's logits."""
    return Prediction(logits=module(images))


def together(logits: Sequence[Tensor]) -> Tensor:
    """Return logits (N, classes) whose softmax is the mean of the softmax of each of `logits`, all (N, classes).

    They are the logarithms of the mean probabilities, so that what takes a model's logits takes an ensemble's too.
    """
    chances = torch.stack([F.log_softmax(one, dim=1) for one in logits])
    return chances.logsumexp(dim=0) - math.log(len(logits))


def require_logits(logits: object, count: int, classes: int) -> None:
    """Refuse what a model gives for `count` images unless it is a tensor of shape (count, classes).

    Raises:
        PluginError: saying what it gives and how many classes there are.
    """
    if isinstance(logits, Tensor) and logits.shape == (count, classes):
        return
    gives = _shape(logits, count) if isinstance(logits, Tensor) else f"a {_kind(logits)}"
    wanted = f"the dataset has {classes} classes: its logits must be (N, {classes})"
    raise PluginError(f"the model gives {gives}, but {wanted}")


def require_prediction(found: object, count: int, classes: int) -> None:
    """Refuse what a model says of `count` images unless all of it can be averaged and written down.

    That is a logit for each image and class, and for each measure a tensor of `count` floats under a name of its own.

    Raises:
        PluginError: saying what it gives and what it must give.
    """
    if not isinstance(found, Prediction):
        raise PluginError(f"the model's predict gives a {_kind(found)}, but must give a Prediction")
    require_logits(found.logits, count, classes)
    for name, values in found.measures.items():
        if name in OWN_METRICS:
            raise PluginError(f"the model measures '{name}', but val_{name} is the training's own: name it otherwise")
        _require_floats(name, values, count)


def _require_floats(name: str, values: object, count: int) -> None:
    if isinstance(values, Tensor) and values.shape == (count,) and values.is_floating_point():
        return
    gives = f"{values.dtype} {_shape(values, count)}" if isinstance(values, Tensor) else f"a {_kind(values)}"
    raise PluginError(f"the model's measure '{name}' is {gives}, but must be a tensor of N floats")


def _kind(value: object) -> str:
    return type(value).__name__


def probe(model: Model[C], config: C, shape: ImageShape) -> None:
    """Build a model on the CPU and ask it about two blank images: it must give a logit for each class.

    Raises:
        PluginError: if it does not, or if its measures are no floats.
        Exception: whatever the plugin itself raises.
    """
    module = model.build(config, shape).eval()
    blank = torch.zeros(2, shape.channels, shape.height, shape.width)
    with torch.inference_mode():
        found = (model.predict or point_prediction)(module, blank)
    require_prediction(found, len(blank), shape.classes)


def _shape(logits: Tensor, count: int) -> str:
    """Return a shape in which the first size is called N where it is that of the images."""
    sizes = list(map(str, logits.shape))
    if sizes and logits.shape[0] == count:
        sizes[0] = "N"
    return f"({', '.join(sizes)})"
