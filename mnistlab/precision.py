"""Which precision a plan is trained in, by a fixed rule, and how: the same plan and seed give the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

BF16_BATCH = 128


def uses_bf16(precision: str, device: torch.device, module: nn.Module, batch_size: int) -> bool:
    """Return whether to compute in bfloat16: `auto` does where the hardware has it and it was measured to be faster.

    The rule is fixed, not timed at each start, so that the same plan and seed give the same numbers. By
    `benchmarks/precision.py`, on a CPU with AMX, convolutions gain at every batch size (1.1 to 2 times), and the small
    matrices of an MLP at 128 images and more; below that, casting costs more than it saves.
    """
    if precision != "auto":
        return precision == "bf16"
    if batch_size < BF16_BATCH and not any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware (AMX or AVX512-BF16)."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    avx = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return bool(amx() or avx())


@contextmanager
def autocast(device: torch.device, *, bf16: bool) -> Generator[None]:
    """Compute in bfloat16 what gains by it, as `torch.autocast` does, where `bf16` says so.

    On a CPU, convolutions of which torch would leave a part of the gradient unwritten are computed in float32.
    """
    guard = WholeGradients() if bf16 and device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16), guard:
        yield


# --- convolutions whose gradients torch leaves unwritten ----------------------------------------------------------

_PLAIN = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_PARAMETERS: Mapping[Callable[..., Any], tuple[str, ...]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _PLAIN),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _TRANSPOSED),
}


class WholeGradients(TorchFunctionMode):
    """Within it, convolutions over maps about as small as their kernel are computed in float32.

    There, weights at the border of a kernel may meet nothing but padding: five of nine of a 3 x 3 kernel with step 2
    over 2 x 2 pixels. Their gradient is 0. In bfloat16 on a CPU, torch 2.15 leaves it unwritten for some shapes: it is
    whatever lay in memory, at times NaN, else a step in some direction that nobody sees. Transposed convolutions of one
    pixel have that fault, too (`benchmarks/gradients.py`). In float32 gradients are whole, and such maps are too small
    for that to cost much.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func`; in float32 if it is such a convolution, with a result in the type that it would have had."""
        named = kwargs or {}
        if func not in _PARAMETERS:
            return func(*args, **named)
        call = dict(zip(_PARAMETERS[func], args, strict=False), **named)
        low = _low_precision_of(call)
        if low is None or not _is_over_a_small_map(call, transposed=_PARAMETERS[func] is _TRANSPOSED):
            return func(*args, **named)
        with torch.autocast("cpu", enabled=False):
            return func(**{k: v.float() if isinstance(v, Tensor) else v for k, v in call.items()}).to(low)


def _low_precision_of(call: Mapping[str, Any]) -> torch.dtype | None:
    """Return the 16-bit type in which a convolution would be computed; None if in another, or if it will be refused."""
    weight = call.get("weight")
    if not isinstance(weight, Tensor) or not isinstance(call.get("input"), Tensor) or weight.dtype == torch.float64:
        return None
    found = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
    return found if found.itemsize == 2 else None


def _is_over_a_small_map(call: Mapping[str, Any], *, transposed: bool) -> bool:
    """Return whether, in some dimension, the map is less than a step larger than the kernel: all faults are there.

    Of a transposed convolution that is said of its output: its weights' gradient is that of a convolution over it.
    """
    kernel = call["weight"].shape[2:]
    each = partial(_for_each_dimension, len(kernel))
    pixels, steps = call["input"].shape[-len(kernel) :], each(call.get("stride", 1))
    if transposed:  # of `(n - 1) * s - 2 * p + d * (k - 1) + 1` pixels, and at most a step more
        return any((n - 2) * s < 2 * p for n, s, p in zip(pixels, steps, each(call.get("padding", 0)), strict=True))
    sizes = zip(pixels, kernel, steps, each(call.get("dilation", 1)), strict=True)
    return any(n < d * (k - 1) + s for n, k, s, d in sizes)


def _for_each_dimension(dimensions: int, value: int | Sequence[int]) -> Sequence[int]:
    """Return a setting of a convolution as torch reads it: a single number holds for all dimensions."""
    values = (value,) if isinstance(value, int) else value
    return values if len(values) > 1 else tuple(values) * dimensions
