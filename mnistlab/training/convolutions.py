"""Convolutions in bfloat16 on a CPU, of which torch would leave a part of the gradient unwritten, and what is done."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

Convolution = Callable[..., Tensor]
Call = dict[str, Any]  # the arguments of a convolution, by the names that torch's schema gives them
Sides = tuple["Side", ...]


def whole_gradients() -> torch.library.Library:
    """Put kernels of ours in the place of those by which `torch.autocast` prepares convolutions on CPUs.

    They cast as torch does, but for maps about as small as the kernel. There, weights at the border of a kernel may
    meet nothing but padding: five of nine of a 3 x 3 kernel with step 2 over 2 x 2 pixels. Their gradient is 0. In
    bfloat16, torch 2.15 leaves it unwritten for some shapes: it is whatever lay in memory, at times NaN, else a step in
    some direction that nobody sees (`benchmarks/gradients.py` counts them). Transposed convolutions of one pixel have
    that fault, too, and so has float32 in three dimensions. It is gone where padding is a step of its own and the rest
    is float32; such maps are too small for that to cost much.

    Returns:
        What holds the kernels: they count in the whole process until it is destroyed.
    """
    library = torch.library.Library("aten", "IMPL", "AutocastCPU")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")  # that torch's own are replaced
        for ways in (1, 2, 3):
            plain = getattr(torch.ops.aten, f"conv{ways}d")
            for op in (plain.default, plain.padding):
                library.impl(op, _kernel(op, ways, _is_small, partial(_padded, plain.default)))
            transposed = getattr(torch.ops.aten, f"conv_transpose{ways}d")
            op = transposed.default if ways == 1 else transposed.input
            library.impl(op, _kernel(op, ways, _makes_small, partial(_cropped, op)))
    return library


def _kernel(
    op: Convolution, ways: int, is_small: Callable[[Sides], bool], in_steps: Callable[[Call, Sides], Tensor]
) -> Convolution:
    """Return a kernel that takes padding and the rest in steps, in float32, where that `is_small`; else it is `op`."""
    schema = op._schema  # pyright: ignore[reportFunctionMemberAccess] - an operator has one, and no other name for it
    defaults = {argument.name: argument.default_value for argument in schema.arguments}

    def kernel(*args: Any, **named: Any) -> Tensor:
        call = {**defaults, **dict(zip(defaults, args, strict=False)), **named}
        low, sides = torch.get_autocast_dtype("cpu"), _sides(ways, call)
        with torch.autocast("cpu", enabled=False):
            if is_small(sides) and all(_is_cast(value) for value in call.values() if isinstance(value, Tensor)):
                return in_steps(_cast(call, torch.float32), sides).to(low)
            return op(**_cast(call, low))

    return kernel


def _is_cast(value: object) -> bool:
    """Return whether it is a tensor that autocast casts: float64 and whatever else it leaves as it is."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64


def _cast(call: Call, dtype: torch.dtype) -> Call:
    return {name: value.to(dtype) if _is_cast(value) else value for name, value in call.items()}


# --- small maps ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """A convolution along one dimension of its map."""

    pixels: int
    kernel: int
    stride: int
    dilation: int
    padding: tuple[int, int]

    @property
    def reach(self) -> int:
        """Return how far the last pixel of the kernel is from its first."""
        return self.dilation * (self.kernel - 1)

    def is_small(self, pixels: int) -> bool:
        """Return whether a map of so many pixels is so small that a weight may meet none of them."""
        return pixels < self.reach + self.stride

    @property
    def made(self) -> int:
        """Return how many pixels come out where the convolution is transposed, without output padding."""
        return (self.pixels - 1) * self.stride - sum(self.padding) + self.reach + 1


def _is_small(sides: Sides) -> bool:
    return any(side.is_small(side.pixels) for side in sides)


def _makes_small(sides: Sides) -> bool:
    """Return whether a transposed convolution ends with a small map: its weights' gradient is that of one over this.

    Where nothing is left of the map, torch is to refuse it.
    """
    return any(side.is_small(side.made) for side in sides) and all(side.made > 0 for side in sides)


def _sides(ways: int, call: Call) -> Sides:
    """Return the dimensions of a convolution; none if the call is one that torch refuses."""
    maps, weight, padding = call["input"], call["weight"], call["padding"]
    if weight.dim() != ways + 2 or maps.dim() not in {ways + 1, ways + 2}:
        return ()
    kernel, strides, dilations = weight.shape[2:], _for_each(ways, call["stride"]), _for_each(ways, call["dilation"])
    if padding == "same":
        reaches = [d * (k - 1) for d, k in zip(dilations, kernel, strict=False)]
        paddings = [(reach // 2, reach - reach // 2) for reach in reaches]
    else:
        paddings = [(p, p) for p in _for_each(ways, [0] if padding == "valid" else padding)]
    if not len(strides) == len(dilations) == len(paddings) == ways:
        return ()
    return tuple(map(Side, maps.shape[-ways:], kernel, strides, dilations, paddings))


def _for_each(ways: int, values: Sequence[int]) -> Sequence[int]:
    """Return a setting as torch reads it: a single number holds for all dimensions."""
    return [*values] * ways if len(values) == 1 else values


def _padded(op: Convolution, call: Call, sides: Sides) -> Tensor:
    """Pad, then convolve."""
    borders = [border for side in reversed(sides) for border in side.padding]
    return op(**{**call, "input": torch.constant_pad_nd(call["input"], borders), "padding": [0] * len(sides)})


def _cropped(op: Convolution, call: Call, sides: Sides) -> Tensor:
    """Convolve transposed, then crop."""
    found = op(**{**call, "padding": [0] * len(sides)})
    for place, side in enumerate(sides, found.dim() - len(sides)):
        before, after = side.padding
        found = found.narrow(place, before, found.shape[place] - before - after)
    return found
