"""Claims that not every plugin makes: one that makes them inherits these classes too."""

from __future__ import annotations

import copy
import shutil
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mnistlab.api import Config, ImageShape, Transform
from mnistlab.plugins.registry import Offer
from mnistlab.testing.base import Contract
from mnistlab.testing.models import build, images, logits
from mnistlab.testing.traces import at
from mnistlab.testing.transfers import GPU, pretended_gpu


class CompilesContract(Contract):
    """The model gives the same logits when `torch.compile` has compiled it."""

    def test_model_compiles(self, model: Offer) -> None:
        """Compile without graph breaks and compare."""
        module = build(model, self.point(model), self.shapes[0]).eval()
        pixels = images(self.shapes[0], 4)
        try:
            with torch.inference_mode():
                compiled = torch.compile(module, fullgraph=True)(pixels)
        except RuntimeError as error:
            if shutil.which("cc") or shutil.which("g++"):
                raise
            pytest.skip(f"there is no C++ compiler here: {error}")
        finally:
            torch.compiler.reset()
        with torch.inference_mode():
            assert torch.allclose(compiled, module(pixels), rtol=1e-3, atol=1e-4), (
                f"{model.name}: the compiled model gives other logits"
            )


class ChannelsLastContract(Contract):
    """The model gives the same logits for both memory formats."""

    def test_model_takes_both_memory_formats(self, model: Offer) -> None:
        """Compare contiguous with channels_last weights and images."""
        last = build(model, self.point(model), self.shapes[0])
        first = copy.deepcopy(last).to(memory_format=torch.contiguous_format)
        pixels = images(self.shapes[0], 4)
        assert torch.allclose(
            logits(model, last, pixels), logits(model, first, pixels.contiguous()), rtol=1e-3, atol=1e-4
        ), f"{model.name}: channels_last gives other logits"


class VmapContract(Contract):
    """Several seeds of the model can be evaluated at once, with their weights stacked (`torch.func`)."""

    def test_model_can_be_stacked(self, model: Offer) -> None:
        """Compare three stacked models with the same three one by one."""
        modules = [build(model, self.point(model), self.shapes[0], seed).eval() for seed in range(3)]
        parameters, buffers = stack_module_state(modules)
        skeleton, pixels = copy.deepcopy(modules[0]).to("meta"), images(self.shapes[0], 4)

        def call(weights: dict[str, Tensor], state: dict[str, Tensor]) -> Tensor:
            return functional_call(skeleton, (weights, state), (pixels,))

        with torch.inference_mode():
            stacked = vmap(call)(parameters, buffers)
            single = torch.stack([_call(module, pixels) for module in modules])
        assert torch.allclose(stacked, single, rtol=1e-3, atol=1e-4), f"{model.name}: stacked models answer differently"


class StaysOnDeviceContract(Contract):
    """The transform waits for nothing on a GPU: from the second batch on it sends it nothing and reads nothing of it.

    No GPU is needed to try that: torch's fake tensors stand in for one.
    """

    def test_transform_stays_on_its_device(self, transform: Offer) -> None:
        """Apply it to two batches, at every point, on a GPU that is not there."""
        made = cast("Transform[Config]", transform.record)
        for config in self.points(transform):
            with pretended_gpu() as traffic:
                change, generator = made.build(config, self.shapes[0]), torch.Generator(GPU)
                pixels = torch.rand(4, *_sides(self.shapes[0]), device=GPU)
                with at(f"{transform.name} at {config!r} on a GPU"):
                    change(pixels, generator)
                    first = len(traffic.crossings)
                    change(pixels, generator)
            found = traffic.crossings[first:]
            assert not found, f"{transform.name} at {config!r} makes a GPU wait at each batch: {'; '.join(found)}"


def _sides(shape: ImageShape) -> tuple[int, int, int]:
    return shape.channels, shape.height, shape.width


def _call(module: nn.Module, pixels: Tensor) -> Tensor:
    return module(pixels)
