"""`.safetensors`: the weights, and the plan from which the plugins that are here build the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from mnistlab.errors import DataError
from mnistlab.plugins.registry import Registry
from mnistlab.trained.formats import Format
from mnistlab.trained.portable import KEY, About, Exported, Together, about_from, ask_of, build

LOADING = """import mnistlab
model = mnistlab.load_model("{name}")  # builds the plan with the plugins installed here
logits = model.ask(images)  # images: numpy float32 (N, {shape}), 0 to 1"""


def _write(module: nn.Module, about: About) -> bytes:
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in module.state_dict().items()}
    return save(tensors, metadata={KEY: about.text()})


def _read(data: bytes, place: str, registry: Callable[[], Registry]) -> Exported:
    plugins = registry()
    about = about_from(_metadata(data, place), place)
    try:
        tensors = load(data)
        models = [_tensors_of(tensors, number, about.members) for number in range(about.members)]
        means = [(own.pop("mean"), own.pop("std")) for own in models]
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{place} is damaged: {error}") from None
    packed = [save({name.removeprefix("module."): one for name, one in own.items()}) for own in models]
    parts = zip(packed, means, strict=True)
    built = [build(about.plan, inner, about.image_shape, *scale, plugins) for inner, scale in parts]
    return Exported(about, ask_of(built[0] if len(built) == 1 else Together(built)))


def _tensors_of(tensors: Mapping[str, Tensor], number: int, members: int) -> dict[str, Tensor]:
    """Return the tensors of a model, the only one or member `number` of several, under its own names."""
    prefix = f"members.{number}." if members > 1 else ""
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def _metadata(data: bytes, place: str) -> str:
    try:
        length = int.from_bytes(data[:8], "little")
        return str(json.loads(data[8 : 8 + length])["__metadata__"][KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{place} is no model that mnistlab exported: it has no metadata '{KEY}'") from None


FORMAT = Format(write=_write, read=_read, loading=LOADING)
