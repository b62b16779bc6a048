"""The arithmetic of a training: which of it is float32, that it repeats, and that the process gets its own back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from mnistlab.plugins.registry import Registry
from mnistlab.training import loop, precision
from mnistlab.training.precision import deterministic, float32_is_exact, reproducible, uses_bf16
from tests.small import plan_of, small

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
BACKENDS: Any = torch.backends


@pytest.fixture(autouse=True)
def settings_as_before() -> Iterator[None]:
    before = (torch.get_float32_matmul_precision(), BACKENDS.cudnn.allow_tf32)
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    BACKENDS.cudnn.benchmark = False
    BACKENDS.fp32_precision = BACKENDS.cudnn.fp32_precision = "none"
    torch.set_float32_matmul_precision(before[0])
    BACKENDS.cudnn.allow_tf32 = before[1]
    BACKENDS.mkldnn.conv.fp32_precision = BACKENDS.mkldnn.rnn.fp32_precision = "none"


def precisions() -> dict[str, str]:
    """What torch computes float32 in, by operation."""
    cudnn, mkldnn = BACKENDS.cudnn, BACKENDS.mkldnn
    named = {"cudnn.conv": cudnn.conv, "cudnn.rnn": cudnn.rnn, "cuda.matmul": BACKENDS.cuda.matmul}
    named |= {f"mkldnn.{name}": getattr(mkldnn, name) for name in ("conv", "matmul", "rnn")}
    return {name: one.fp32_precision for name, one in named.items()}


# --- determinism --------------------------------------------------------------------------------------------------


def fills(one: loop.Training) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        loop.run_epoch(one)
    return sum(event.count for event in seen.key_averages() if event.key == "aten::fill_")


def test_a_deterministic_step_fills_no_memory_that_it_writes_anyway(builtins: Registry) -> None:
    plan, data = plan_of(builtins, "cnn", epochs=3), small()
    one = loop.begin(plan, 0, data, builtins)
    loop.run_epoch(one)  # the first one fills the optimizer's state
    plain = fills(one)
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
        assert fills(one) == plain


def test_on_a_gpu_sums_are_the_same_each_time_and_no_kernel_is_chosen_by_its_time() -> None:
    BACKENDS.cudnn.benchmark = True
    with reproducible(CUDA):
        assert torch.get_deterministic_debug_mode() == 1  # it warns
        assert not BACKENDS.cudnn.benchmark
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.get_deterministic_debug_mode() == 0
    assert BACKENDS.cudnn.benchmark
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_a_program_that_asks_for_errors_gets_its_own_mode_back() -> None:
    torch.use_deterministic_algorithms(mode=True)
    with pytest.raises(KeyError), reproducible(CUDA):
        raise KeyError
    assert torch.get_deterministic_debug_mode() == 2
    assert torch.utils.deterministic.fill_uninitialized_memory


# --- float32 ------------------------------------------------------------------------------------------------------


def mixed() -> None:
    """Set old and new switches to different values, after which torch does not tell the old ones."""
    BACKENDS.cudnn.allow_tf32 = False
    BACKENDS.cudnn.conv.fp32_precision = "tf32"


SETTERS = {
    "torch's own": lambda: None,
    "by the old switches": lambda: torch.set_float32_matmul_precision("medium"),
    "for everything": lambda: setattr(BACKENDS, "fp32_precision", "tf32"),
    "for cuDNN": lambda: setattr(BACKENDS.cudnn, "fp32_precision", "tf32"),
    "mixed": mixed,
}


@pytest.mark.parametrize("how", SETTERS)
def test_float32_is_float32_whatever_was_set_before_and_that_comes_back(how: str) -> None:
    SETTERS[how]()
    before = precisions()
    assert "tf32" in before.values()  # torch's default for cuDNN already
    with float32_is_exact():
        assert set(precisions().values()) == {"ieee"}
        assert not BACKENDS.cuda.matmul.allow_tf32
        with BACKENDS.cudnn.flags(enabled=False):  # reads an old switch; afterwards cuDNN follows torch.backends
            pass
        assert set(precisions().values()) == {"ieee"}
    assert precisions() == before


class Asking(nn.Module):
    """A linear model that notes in which arithmetic it is called, and leaves another one behind."""

    seen: list[set[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(784, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(set(precisions().values()))
        BACKENDS.fp32_precision = "tf32"
        logits = self.head(images.flatten(1))
        if logits.requires_grad:
            logits.register_hook(lambda _: self.seen.append(set(precisions().values())))
        return logits


def test_forward_backward_and_evaluation_are_exact_and_no_trial_hands_its_arithmetic_on(
    builtins: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = builtins.find("model", "mlp").record
    monkeypatch.setitem(record.__dict__, "build", lambda _config, _shape: Asking())
    plan = plan_of(builtins, "mlp")
    Asking.seen.clear()
    loop.train(plan, 0, small(), builtins)
    assert len(Asking.seen) == 3  # forward, backward, evaluation
    assert Asking.seen == [{"ieee"}] * 3
    assert BACKENDS.fp32_precision == "none"
    assert BACKENDS.cudnn.conv.fp32_precision == "tf32"


# --- bfloat16 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "has_it"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((8, 9), True), ((12, 0), True)]
)
def test_auto_takes_bfloat16_on_gpus_that_multiply_it(
    capability: tuple[int, int], has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
    conv, dense = nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Linear(4, 4)
    assert uses_bf16("auto", CUDA, conv, 8) == has_it
    assert uses_bf16("auto", CUDA, dense, precision.BF16_BATCH) == has_it
    assert asked == [CUDA, CUDA]
    assert not uses_bf16("auto", CUDA, dense, precision.BF16_BATCH - 1)
    assert not uses_bf16("fp32", CUDA, conv, 512)
    assert uses_bf16("bf16", CUDA, conv, 512)
