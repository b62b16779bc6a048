"""A tiny vision transformer (Dosovitskiy et al. 2021), normalised before each sub-layer, read out by the mean token.

The mean over the tokens instead of a class token follows Beyer, Zhai, Kolesnikov 2022 ("Better plain ViT baselines").
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from mnistlab.api import Choice, Config, Float, ImageShape, Int
from mnistlab.builtin.models.layers import check_shape


class Vit(Config):
    """Patches become tokens of heads x head_width numbers; learned positions."""

    patch: Annotated[int, Choice(2, 4, 7)] = 7
    """Side of a patch in pixels; images are padded with zeros to a multiple of it."""
    depth: Annotated[int, Int(1, 6)] = 3
    """Number of transformer layers."""
    heads: Annotated[int, Int(1, 8)] = 4
    """Attention heads."""
    head_width: Annotated[int, Choice(8, 16, 32)] = 32
    """Numbers a head; a token has heads x head_width of them, so that every combination divides."""
    mlp_ratio: Annotated[float, Float(1.0, 4.0)] = 2.0
    """Hidden units of each layer's perceptron as a multiple of the token's width, rounded to an integer."""
    dropout: Annotated[float, Float(0.0, 0.5)] = 0.0
    """Share of the numbers that is dropped from each sub-layer's output."""


class _Patches(nn.Module):
    """Images (N, C, H, W) -> tokens (N, T, width), with their positions added."""

    def __init__(self, shape: ImageShape, patch: int, width: int) -> None:
        super().__init__()
        rows, columns = -(-shape.height // patch), -(-shape.width // patch)
        down, right = rows * patch - shape.height, columns * patch - shape.width
        # Half of the padding on each side keeps the digit in the middle.
        self.padding = (right // 2, right - right // 2, down // 2, down - down // 2)
        self.project = nn.Conv2d(shape.channels, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, rows * columns, width))
        # As loud as the patches: at the usual 0.02 the places of strokes are learnt late (after 200 steps on MNIST a
        # validation accuracy of 92 % instead of 95 %).
        nn.init.trunc_normal_(self.positions, std=0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens, row by row."""
        patches = self.project(pad(images, self.padding) if any(self.padding) else images)
        return patches.flatten(2).transpose(1, 2) + self.positions


class _Attention(nn.Module):
    """Self-attention (N, T, width) -> (N, T, width).

    Queries, keys and values have no bias: one on the keys would never get a gradient (softmax ignores it).
    """

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.gather = nn.Linear(heads * head_width, 3 * heads * head_width, bias=False)
        self.merge = nn.Linear(heads * head_width, heads * head_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return each token's mixture of all tokens."""
        N, T, _ = tokens.shape
        query, key, value = self.gather(tokens).reshape(N, T, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        mixed = _attend(query, key, value)  # (N, heads, T, head_width)
        return self.merge(mixed.transpose(1, 2).reshape(N, T, -1))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the values (N, heads, T, head_width) mixed by softmax(query x key)."""
    if query.device.type != "cpu" or query.dtype == torch.float32:
        return scaled_dot_product_attention(query, key, value)
    # torch 2.15's backward of this function is several times slower in bfloat16 than in float32 on the CPU.
    with torch.autocast("cpu", enabled=False):
        return scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)


class _Layer(nn.Module):
    """Attention, then a perceptron for each token, both added to what came in: (N, T, width) -> same."""

    def __init__(self, config: Vit) -> None:
        super().__init__()
        width = config.heads * config.head_width
        hidden = round(width * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(config.heads, config.head_width)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens after one layer."""
        tokens = tokens + self.drop(self.attention(self.norm1(tokens)))
        return tokens + self.drop(self.perceptron(self.norm2(tokens)))


class _MeanToken(nn.Module):
    """(N, T, width) -> (N, width)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the mean over the tokens."""
        return tokens.mean(dim=1)


def build_vit(config: Vit, shape: ImageShape) -> nn.Module:
    """Return a module (N, C, H, W) -> (N, classes).

    Raises:
        SpecError: if the images are smaller than 8 x 8.
    """
    check_shape("vit", shape)
    width = config.heads * config.head_width
    layers = [_Layer(config) for _ in range(config.depth)]
    head = [nn.LayerNorm(width), _MeanToken(), nn.Linear(width, shape.classes)]
    return nn.Sequential(_Patches(shape, config.patch, width), *layers, *head)
