"""A GPU that is not there: what code would copy to and from one, and wait for, found on any machine.

A copy from ordinary host memory and a number that is read make a GPU wait for the host, and the host for the GPU: at
every batch, that can cost more than the training itself. torch's fake tensors (those of `torch.export`) have a device
and a shape but no values, so that no GPU is needed, and tensors of two devices that meet are an error as on a real one.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)
_INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index", "aten::_index_put_impl_")

_OF_OTHERS = torch.DispatchKey.CompositeImplicitAutograd  # an operation that is made of others
_WITHOUT_FAKE = ("aten::_fused_sgd_",)  # writes in place, and torch 2.15 can't pretend to


@dataclass
class Traffic:
    """What crosses between host and device, in words, in the order in which it happens."""

    crossings: list[str] = field(default_factory=list[str])


class _Generator(torch.Generator):
    """A generator that says which device it is made for, and draws on the CPU. Fake tensors draw from any."""

    _pretended: torch.device

    def __new__(cls, device: Any = "cpu") -> _Generator:  # pyright: ignore[reportInconsistentConstructor] - C's __init__
        """Make one for `device`, which need not be there."""
        made = super().__new__(cls)
        made._pretended = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride] - it is a getter in C
        """Return the device that it was made for."""
        return self._pretended

    def get_offset(self) -> int:
        """Return where a GPU's generator is in its sequence, which the host knows."""
        return 0


@contextmanager
def pretended_gpu() -> Generator[Traffic]:
    """Let `device="cuda"` work inside without a GPU, without values; yield what crosses between it and the host.

    All tensors that are made inside are fake, those on the CPU too; tensors from outside can't be used there. A number
    that is read is always the same one; of truths, every second one is true.

    Raises:
        Exception: inside, where a shape depends on values that are on the device, which is noted as well; and where
            tensors of two devices meet.
    """
    traffic = Traffic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch.nn.Module, "_apply", _moved)
        for module, name in ((torch.random, "fork_rng"), (torch.cuda, "device")):
            patch.setattr(module, name, _nothing)
        for module, name in ((torch, "manual_seed"), (torch.cuda, "manual_seed"), (torch.cuda, "manual_seed_all")):
            patch.setattr(module, name, _nothing)
        with FakeTensorMode(), _Watching(traffic):
            yield traffic


def _nothing(*_: object, **__: object) -> AbstractContextManager[None]:
    return nullcontext()


def _moved(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Do what `module.to` and its like do: torch's own way is not made for fake tensors that change their device."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules() if recurse else [module]:
        for name, old in part.named_parameters(recurse=False):
            if id(old) not in made:
                made[id(old)] = nn.Parameter(change(old.detach()), requires_grad=old.requires_grad)
            setattr(part, name, made[id(old)])
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, change(buffer))
    return module


class _Watching(TorchDispatchMode):
    """Notes each operation that moves values between host and device, or that needs them on the host."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic
        self._truths = itertools.cycle((False, True))  # whatever a loop waits for, it comes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func.namespace == "aten" and func.has_kernel_for_dispatch_key(_OF_OTHERS):  # in inference mode
            with self:
                return func.decompose(*args, **given)
        tensors = [leaf for leaf in pytree.tree_leaves((args, given)) if isinstance(leaf, Tensor)]
        name = func.name().partition(".")[0]
        if name == "aten::_local_scalar_dense":
            self._note(name, "reads a number", of=tensors)
            return next(self._truths) if tensors[0].dtype == torch.bool else _a_number(tensors[0].dtype)
        if name in _INDEXED and _on(GPU, tensors[:1]) and any(_on(torch.device("cpu"), [one]) for one in tensors[1:]):
            self._note(name, "copies indices")
        if name in _WITHOUT_FAKE:
            return None
        try:
            made = func(*args, **given)
        except (DataDependentOutputException, DynamicOutputShapeException):
            self._note(name, "needs values for a shape", of=tensors)
            raise
        if name in {"aten::_to_copy", "aten::copy_"} and len({_type(one) for one in (*tensors, made)}) > 1:
            self._note(name, f"copies {_type(tensors[-1])} to {_type(made)}")
        return made

    def _note(self, name: str, what: str, of: list[Tensor] | None = None) -> None:
        if of is None or any(_type(one) == GPU.type for one in of):
            self._traffic.crossings.append(f"{what} ({name}) at {_place()}")


def _type(tensor: Tensor) -> str:
    return tensor.device.type


def _on(device: torch.device, tensors: list[Tensor]) -> bool:
    """Return whether they are on such a device and hold more than a number, which travels with the call."""
    return all(_type(one) == device.type and one.dim() > 0 for one in tensors)


def _a_number(dtype: torch.dtype) -> float:
    return 0.5 if dtype.is_floating_point else 1


def _place() -> str:
    """Return the line of the innermost caller that is not torch."""
    frames: Iterator[traceback.FrameSummary] = reversed(traceback.extract_stack())
    outside = (f for f in frames if "/torch/" not in f.filename and f.filename != __file__)
    found = next(outside, None)
    return f"{found.filename}:{found.lineno}" if found else "an unknown place"
