"""Tensors on disk: nested state as one safetensors file. Nothing here pickles or unpickles."""

from __future__ import annotations

import json
from typing import Any, cast

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

_TENSOR = "__tensor__"
_LAST = "channels_last"


def pack(state: object) -> bytes:
    """Return nested dicts, lists, numbers, strings and tensors as safetensors bytes (structure as JSON inside)."""
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_strip(state, tensors))
    return save(tensors or {"empty": torch.zeros(1)}, metadata={"structure": structure})


def pack_weights(module: nn.Module) -> bytes:
    """Return a module's weights and buffers as safetensors bytes under their own names, as other programs read them."""
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()})


def load_weights(module: nn.Module, data: bytes) -> None:
    """Give a module the weights that `pack_weights` returned for one like it."""
    module.load_state_dict(load(data))


def unpack(data: bytes) -> Any:
    """Return what `pack` was given, with its tensors on the CPU."""
    return _fill(_structure(data), load(data))


def unpack_entry(data: bytes, key: str) -> Any:
    """Return one entry of a dict that `pack` was given, without reading any tensor.

    Raises:
        KeyError: if there is no such entry, or it holds tensors.
    """
    return _fill(dict(_structure(data)["__dict__"])[key], {})


def _structure(data: bytes) -> Any:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return json.loads(header["__metadata__"]["structure"])


def _strip(value: object, tensors: dict[str, Tensor]) -> object:
    """Return `value` with each tensor replaced by a reference into `tensors`."""
    if isinstance(value, Tensor):
        key = str(len(tensors))
        # A contiguous copy: views and shared storages can't be told apart in a file.
        tensors[key] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: key} | ({_LAST: True} if _channels_last(value) else {})
    if isinstance(value, dict):
        # JSON keys are strings, and optimizer states are keyed by integers: keep both as pairs.
        items = cast("dict[object, object]", value).items()
        return {"__dict__": [[key, _strip(inner, tensors)] for key, inner in items]}
    if isinstance(value, (list, tuple)):
        return [_strip(inner, tensors) for inner in cast("list[object]", value)]
    return value


def _channels_last(tensor: Tensor) -> bool:
    """Return whether a tensor's memory is in channels_last order, which a file does not keep.

    It has to come back so: fused optimizers walk a parameter and its moments by memory and would mix up elements.
    """
    return tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _fill(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_fill(inner, tensors) for inner in cast("list[Any]", value)]
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        if _TENSOR in table:
            tensor = tensors[table[_TENSOR]]
            return tensor.contiguous(memory_format=torch.channels_last) if table.get(_LAST) else tensor
        return {key: _fill(inner, tensors) for key, inner in table["__dict__"]}
    return value
