"""Convolution filters as matrices: a view (outputs, inputs x height x width) that shares the filters' memory.

The order of a matrix's columns follows the filters' memory, so that filters stored channels_last need no copy either.
"""

from __future__ import annotations

import torch
from torch import Tensor


def has_matrix(tensor: Tensor) -> bool:
    """Return whether `matrix_view` can take `tensor`."""
    return tensor.ndim == 2 or (tensor.ndim > 2 and (tensor.is_contiguous() or _channels_last(tensor)))


def matrix_view(tensor: Tensor) -> Tensor:
    """Return `tensor` (outputs, ...) as a detached matrix (outputs, the rest) that shares its memory."""
    detached = tensor.detach()
    if tensor.ndim == 2:
        return detached
    if _channels_last(tensor):
        detached = detached.permute(0, 2, 3, 1)
    return detached.view(tensor.shape[0], -1)


def to_matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """Return `tensor`, of the shape of the filters `like`, as a matrix with the columns of `matrix_view(like)`."""
    if like.ndim > 2 and _channels_last(like):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(like.shape[0], -1)


def from_matrix(matrix: Tensor, like: Tensor) -> Tensor:
    """Return `matrix`, with the columns of `matrix_view(like)`, in the shape of the filters `like`."""
    if like.ndim > 2 and _channels_last(like):
        outputs, inputs, height, width = like.shape
        return matrix.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)
    return matrix.reshape(like.shape)


def _channels_last(tensor: Tensor) -> bool:
    """Return whether the last two dimensions lie outside the second in memory (and not the usual way too)."""
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
