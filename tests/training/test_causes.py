"""Whose fault a failure is: one table, and one function from an error to its word."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from mnistlab.errors import DataError, MissingPluginError, PluginError, VersionError
from mnistlab.training.causes import CAUSES, DivergedError, TimeLimitError, cause_in, cause_named, cause_of, is_absence
from mnistlab.util.seal import SealedError

ROOT = Path(__file__).parents[2]


def accelerator(text: str, code: int | None = None) -> torch.AcceleratorError:
    """An error as torch raises it, with the runtime's code, or as a plugin may make it up, without."""
    error = torch.AcceleratorError(text)
    if code is not None:
        vars(error)["error_code"] = code
    return error


def too_large() -> BaseException:
    """What numpy raises itself for an array that no memory holds."""
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, dtype=np.uint8)
    return caught.value


def too_large_for_torch() -> BaseException:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB"),
    torch.OutOfMemoryError("x"),
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    accelerator("CUDA error: out of memory", 2),
    accelerator("CUDA error: out of memory"),
    accelerator("HIP error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling `cusparseCreate(handle)`"),
    RuntimeError("cusparse: allocation failed"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA NVRTC error: NVRTC_ERROR_OUT_OF_MEMORY"),
    RuntimeError("MAGMA error: MAGMA_ERR_DEVICE_ALLOC"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
    RuntimeError("hipErrorOutOfMemory"),
    RuntimeError("XPU out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("UR error: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.80 GB, other allocations: 384.00 KB)"),
    RuntimeError("Invalid buffer size: 23.84 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    RuntimeError("[enforce fail at alloc_cpu.cpp:115] data. DefaultCPUAllocator: not enough memory: you tried to"),
    RuntimeError("unable to mmap 4096 bytes from file </x>: Cannot allocate memory (12)"),
    RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate request for 2.0GiB"),
    RuntimeError("Intel oneMKL DFTI ERROR: Not enough memory to allocate"),
]
DEVICE = [
    *(accelerator(f"CUDA error: {text}", code) for text, code in [
        ("device-side assert triggered", 710),
        ("an illegal memory access was encountered", 700),
        ("misaligned address", 716),
        ("unspecified launch failure", 719),
        ("the launch timed out and was terminated", 702),
        ("an illegal instruction was encountered", 715),
        ("hardware stack error", 714),
        ("uncorrectable ECC error encountered", 214),
        ("uncorrectable NVLink error detected during the execution", 220),
        ("no kernel image is available for execution on the device", 209),
        ("device kernel image is invalid", 200),
        ("CUDA-capable device(s) is/are busy or unavailable", 46),
        ("unknown error", 999),
        ("an error that only a later version knows", 731),
    ]),
    accelerator("CUDA error: device-side assert triggered"),
    accelerator("the device is broken for good, says the test"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("HIP error: unspecified launch failure"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    RuntimeError("Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost"),
    RuntimeError("GPU has fallen off the bus"),
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("CUDA error: CUDA driver version is insufficient for CUDA runtime version"),
    RuntimeError("The NVIDIA driver on your system is too old (found version 11040)"),
    RuntimeError("CUDA error: system has unsupported display driver / cuda driver combination"),
    RuntimeError("CUDA error: initialization error"),
]  # fmt: skip
DISK = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError('Error while serializing: I/O error: Os { code: 28, kind: StorageFull, message: "No space left on'),
    RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    RuntimeError("database or disk is full"),
    RuntimeError("There is not enough space on the disk"),
]
SYSTEM = [
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENFILE, "Too many open files in system"),
    OSError(errno.EIO, "Input/output error"),
    ConnectionResetError("Connection reset by peer"),
    TimeoutError("timed out"),
    socket.gaierror(-3, "Temporary failure in name resolution"),
    URLError("[Errno 111] Connection refused"),
    RuntimeError("can't start new thread"),
]
PLUGIN = [
    ValueError("x"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (64x10 and 12x10)"),
    KeyError("out"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    PermissionError(errno.EACCES, "Permission denied"),
    ModuleNotFoundError("No module named 'timm'"),
    PluginError("heads don't divide the width"),
    SealedError("the test set is sealed"),
    SystemExit(7),
    RuntimeError("out of resource: shared memory, Required: 131072, Hardware limit: 101376"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    accelerator("CUDA error: invalid argument", 1),
    accelerator("CUDA error: invalid configuration argument", 9),
    accelerator("CUDA error: too many resources requested for launch", 701),
    accelerator("CUDA error: operation not permitted when stream is capturing", 900),
    accelerator("CUDA error: invalid argument"),
    RuntimeError("Trying to create tensor with negative dimension -1"),
    ValueError("the kernel image is larger than the input"),
    ValueError("not enough space for another patch"),
    ValueError("syntax error contained in the formula"),
]
OTHERS = [
    (DivergedError("x"), "nan"),
    (TimeLimitError("x"), "timeout"),
    (VersionError("x"), "version"),
    (MissingPluginError("x"), "missing"),
]
ALL = [
    *((error, word) for word, errors in {
        "memory": MEMORY, "device": DEVICE, "disk": DISK, "system": SYSTEM, "plugin": PLUGIN
    }.items() for error in errors),
    *OTHERS,
]  # fmt: skip


@pytest.mark.parametrize(("error", "word"), ALL, ids=lambda value: repr(value)[:60])
def test_an_error_has_one_cause(error: BaseException, word: str) -> None:
    assert cause_of(error) == word


@pytest.mark.parametrize("made", [too_large, too_large_for_torch])
def test_what_is_raised_here_for_too_large_an_array_is_a_lack_of_memory(made: Callable[[], BaseException]) -> None:
    assert cause_of(made()) == "memory"


def from_it(error: BaseException) -> None:
    raise ValueError("the plugin failed") from error


def again(error: BaseException) -> None:
    raise error


def while_handling_it(error: BaseException) -> None:
    try:
        again(error)
    except BaseException:
        raise ValueError("the plugin failed") from None


def in_a_group(error: BaseException) -> None:
    raise BaseExceptionGroup("several", [ValueError("one"), error])


def deep_inside(error: BaseException) -> None:
    try:
        in_a_group(error)
    except BaseException as group:
        raise PluginError("wrapped") from group


def quoted(error: BaseException) -> None:
    raise RuntimeError(f"training failed: {type(error).__name__}: {error}")


@pytest.mark.parametrize("wrap", [from_it, while_handling_it, in_a_group, deep_inside])
def test_a_plugin_that_catches_an_error_and_raises_another_hides_nothing(wrap: Callable[[BaseException], None]) -> None:
    for error, word in ALL:
        with pytest.raises(BaseException) as caught:
            wrap(error)
        assert cause_of(caught.value) == word, error


@pytest.mark.parametrize("error", [MEMORY[0], MEMORY[4], DEVICE[0], DISK[0]], ids=repr)
def test_where_only_the_text_is_left_the_text_decides(error: BaseException) -> None:
    with pytest.raises(RuntimeError) as caught:
        quoted(error)
    assert cause_of(caught.value) == cause_of(error) == cause_in(str(caught.value))


def test_a_type_comes_before_any_text_wherever_it_stands() -> None:
    outer = RuntimeError("out of memory, or so it seems")
    outer.__context__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert cause_of(outer) == "disk"


def test_an_error_that_was_raised_from_itself_ends_the_search_for_its_cause() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__context__ = two, one
    assert cause_of(one) == "plugin"


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (FileNotFoundError("weights.pt"), True),
        (ModuleNotFoundError("No module named 'timm'"), True),
        (DataError("truncated"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        (SealedError("sealed"), False),
        (ValueError("x"), False),
    ],
)
def test_what_another_node_may_have(error: BaseException, is_one: bool) -> None:
    assert is_absence(error) == is_one


# --- the table ----------------------------------------------------------------------------------------------------


def test_only_what_is_the_plans_is_held_against_it() -> None:
    assert {cause.word for cause in CAUSES.values() if cause.infeasible} == {"nan", "plugin", "timeout", "memory"}
    assert all(cause.owner == "plan" for cause in CAUSES.values() if cause.infeasible)


def test_what_a_node_lacks_has_words_for_it_and_for_what_to_do() -> None:
    assert all(bool(one.lack and one.remedy) == (one.owner in {"node", "device"}) for one in CAUSES.values())


@pytest.mark.parametrize("word", ["nan", "timeout", "memory", "version", "plugin", "worker", "hang"])
def test_the_words_of_old_run_directories_are_there(word: str) -> None:
    assert cause_named(word) is CAUSES[word]


def test_a_word_of_a_later_version_is_held_against_no_plan() -> None:
    unknown = cause_named("meteorite")
    assert (unknown.owner, unknown.infeasible, unknown.again) == ("machine", False, 0)


def test_the_documents_list_every_cause_with_its_owner() -> None:
    page = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.partition("## Causes")[2].partition("##")[0].splitlines()]
    found = {word: row for row in rows if len(row) == 5 for word in re.findall(r"`(\w+)`", row[0])}
    assert found.keys() == CAUSES.keys()
    times = {0: "no", 1: "once", 3: "three times", 1000: "as often as needed"}
    for word, cause in CAUSES.items():
        _, owner, _, again, infeasible = (part.strip() for part in found[word])
        assert owner == f"the {cause.owner}'s"
        assert cause.owner == "node" or again.split(",")[0] == times[cause.again]
        assert infeasible == ("yes" if cause.infeasible else "no")
