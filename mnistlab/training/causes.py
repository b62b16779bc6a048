"""Why a training failed, and whose fault that is: the one table that everything else reads.

A cause is a word in events and results. It belongs to the plan, to the device, to a node or to the machine. Only what
belongs to the plan is held against the plan. `cause_of` finds the word for an error: by its type first, by its text
last.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from mnistlab.errors import DataError, MissingPluginError, VersionError

Owner = Literal["plan", "device", "node", "machine"]


@dataclass(frozen=True)
class Cause:
    """One kind of failure.

    `means` completes "the training failed because ...". A trial goes on `again` times after it; after a cause of a
    node's it goes to another node, however often that takes. Optuna is told that the plan is infeasible only where
    `infeasible` says so. `fixed`: the same plan would fail in the same way again, so that `retry` can't help. `lack`
    and `remedy` say what a node lacks and what to do about it.
    """

    word: str
    owner: Owner
    means: str
    again: int = 0
    infeasible: bool = False
    fixed: bool = False
    lack: str = ""
    remedy: str = ""


CAUSES: Mapping[str, Cause] = {
    cause.word: cause
    for cause in (
        Cause("nan", "plan", "a loss became NaN or infinite", infeasible=True, fixed=True),
        Cause("plugin", "plan", "the code of a plugin raised an error", infeasible=True),
        Cause("timeout", "plan", "it took longer than search.trial_timeout", infeasible=True),
        # Once more with all of a device. What is too little then is too little for the plan.
        Cause("memory", "plan", "there was not enough memory", again=1, infeasible=True),
        Cause(
            "device",
            "device",
            "the device stopped working for this process",
            again=3,
            lack="loses its device in one trial after the other",
            remedy="look into the logs of these trials for what breaks it, or hide a broken GPU (CUDA_VISIBLE_DEVICES)",
        ),
        Cause("worker", "machine", "its process or its node is gone", again=3),
        # Each such process ends, so this does not go on for ever.
        Cause("moved", "machine", "its process began with another GPU than it was given", again=1000),
        Cause("system", "machine", "the operating system or the network refused a request", again=3),
        # Each start costs the whole of search.stall_timeout.
        Cause("hang", "machine", "no step ended any more"),
        Cause(
            "data",
            "node",
            "its node lacks the data",
            lack="lacks the data",
            remedy="put the same files there, or let it fetch them",
        ),
        Cause(
            "missing", "node", "its node lacks a plugin", lack="lacks a plugin", remedy="install the same plugins there"
        ),
        Cause(
            "version",
            "node",
            "its node has another version of a plugin",
            lack="has another version of a plugin",
            remedy="install the same version there",
        ),
        Cause(
            "disk",
            "node",
            "its node has no room left on a disk",
            lack="has no room left on a disk",
            remedy="free some space there",
        ),
        # A file or a module that the plan's own code looked for. If another node has it, this one lacks it; if none
        # has it, that is an error of the plugin's, and the trial fails with the cause `plugin`.
        Cause(
            "absent",
            "node",
            "a file or a module was not found",
            lack="lacks a file or a module",
            remedy="put it there, as on the other nodes",
        ),
    )
}


def cause_named(word: str) -> Cause:
    """Return the cause of that name; one that this version does not know is taken for the machine's."""
    return CAUSES.get(word) or Cause(word, "machine", word)


class DivergedError(Exception):
    """The loss became NaN or infinite: the trial has failed, at once."""


class TimeLimitError(Exception):
    """A trial has had the time that it may take."""


# --- from an error to its word ------------------------------------------------------------------------------------

# Of CUDA's and HIP's runtime (driver_types.h). After these errors the context lives on: they are about one call, and
# the call is the plugin's.
_NO_MEMORY = 2
_CALL_REFUSED = frozenset({1, 9, 12, 13, 16, 17, 21, 65, 68, 69, 98, 400, 500, 701, 720, 801, *range(900, 909), 912})

_MEMORY = frozenset({errno.ENOMEM})
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
_SYSTEM = frozenset(
    {
        *(errno.EIO, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOBUFS, errno.ESTALE),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT),
    }
)

# What torch 2.15 and the libraries below it say (strings of libtorch, libc10, libcudart, cuBLAS, cuDNN, cuFFT,
# cuSOLVER, cuSPARSE, MAGMA, MKL), and what other backends and libraries are known to say.
_TEXTS: Mapping[str, re.Pattern[str]] = {
    "memory": re.compile(
        r"(?<![a-z])out[ _]of[ _]([a-z]+[ _])?memory(?![a-z])"  # of CUDA, HIP, XPU, MPS, NVRTC
        r"|ErrorOutOfMemory|MemoryAllocation\b"  # cudaErrorMemoryAllocation, hipErrorOutOfMemory
        r"|alloc(ation)?[ _]?failed|ALLOCATION_FAILURE|ERR_(HOST|DEVICE)_ALLOC"
        r"|(can't|can ?not|could not|couldn't|unable to|failed to) allocate\b"
        r"|(not enough|insufficient)( \w+)?[ _]memory|insufficient_memory"
        r"|\bbad_alloc\b|RESOURCE_EXHAUSTED|Invalid buffer size"  # C++; XLA; MPS
        # A library that can't make its handle, or find any algorithm, found no memory for it.
        r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_NOT_INITIALIZED|unable to find a valid cuDNN algorithm",
        re.IGNORECASE,
    ),
    "device": re.compile(
        r"device-side assert|illegal (memory access|address|instruction)|misaligned address"
        r"|unspecified launch failure|launch (timed out|failure)|(no|device) kernel image|hardware stack error"
        r"|invalid (program counter|pc\b)|operation not supported on global/shared address space"
        r"|uncorrectable|\bECC error|(CUDA|HIP)\b.*error contained|invalid device context|context is destroyed"
        r"|hardware error|fallen off the bus|GPU is lost|device (is |was )?lost|unable to determine the device handle"
        r"|no CUDA-capable device|device\(s\) is/are busy or unavailable|no CUDA GPUs are available"
        r"|driver shutting down|driver initialization failed|Found no NVIDIA driver|MPS (client|server)"
        r"|driver version is insufficient|NVIDIA driver on your system is too old|unsupported display driver"
        r"|(CUDA|HIP) error: (initialization error|system not yet initialized)"
        r"|tensor memory not completely freed|external entity outside of CUDA|HSA_STATUS_ERROR|GPU (Hang|core dump)"
        r"|STATUS_(EXECUTION_FAILED|MAPPING_ERROR|INTERNAL_ERROR)|CUFFT_(EXEC_FAILED|INTERNAL_ERROR)"
        r"|unhandled (cuda|hip) error|(CUDA|HIP|XPU|driver) error: unknown error",
        re.IGNORECASE,
    ),
    "disk": re.compile(
        r"no space left on|StorageFull|disk quota exceeded|(disk|file ?system) (is )?full"
        r"|not enough (disk space|space on)|PytorchStreamWriter failed writing",
        re.IGNORECASE,
    ),
    "system": re.compile(
        r"can't start new thread|too many open files|input/output error|connection (reset|refused|aborted)"
        r"|temporary failure in name resolution|network is unreachable",
        re.IGNORECASE,
    ),
}
# Of an error whose type says that it is a device's: what it says where it is about one call.
_REFUSED = re.compile(
    r"invalid (argument|configuration argument|device function|device symbol|device pointer|resource handle)"
    r"|too many (resources requested for launch|blocks in cooperative launch)|not supported|captur",
    re.IGNORECASE,
)


def cause_of(error: BaseException) -> str:
    """Return the word for why a training failed; what is nobody else's is `plugin`.

    What `error` was raised from, or while handling what, counts too, and so do the members of a group: plugins catch
    errors and raise others. Types come first, all of them, then texts.
    """
    chain = tuple(_chain(error))
    return next(filter(None, (*map(_by_type, chain), *map(_by_text, chain))), "plugin")


def cause_in(text: str) -> str:
    """Return the word for the cause that an error's text names, or "" where it names none."""
    return next((word for word, pattern in _TEXTS.items() if pattern.search(text)), "")


def is_absence(error: BaseException) -> bool:
    """Return whether something was not found, or may not be read, that another node may have: a file or a module."""
    kinds = (FileNotFoundError, NotADirectoryError, PermissionError, ImportError, DataError)
    return any(isinstance(one, kinds) or getattr(one, "errno", None) == errno.EROFS for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that stands behind it, the outermost first, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        # `from None` hides a context from people, and does not undo it.
        waiting += [*members, *(behind for behind in (one.__cause__, one.__context__) if behind is not None)]


def _by_type(error: BaseException) -> str:
    kinds: Mapping[str, type[BaseException] | tuple[type[BaseException], ...]] = {
        "nan": DivergedError,
        "timeout": TimeLimitError,
        "version": VersionError,
        "missing": MissingPluginError,
        "memory": MemoryError,  # numpy's and CuPy's are among these
    }
    for word, kind in kinds.items():
        if isinstance(error, kind):
            return word
    names = {kind.__name__ for kind in type(error).__mro__}  # torch is not imported here: the console reads the table
    if "OutOfMemoryError" in names:
        return "memory"
    if "AcceleratorError" in names:
        return _of_accelerator(error)
    return _of_system(error) if isinstance(error, OSError) else ""


def _of_accelerator(error: BaseException) -> str:
    """Judge a torch.AcceleratorError: by its code, else by its text. What neither knows may have broken the device."""
    code: object = getattr(error, "error_code", None)
    if code == _NO_MEMORY or (found := cause_in(str(error))) == "memory":
        return "memory"
    if found == "device":
        return found
    return "" if code in _CALL_REFUSED or (code is None and _REFUSED.search(str(error))) else "device"


def _of_system(error: OSError) -> str:
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror)) or error.errno in _SYSTEM:
        return "system"
    return "memory" if error.errno in _MEMORY else "disk" if error.errno in _DISK else ""


def _by_text(error: BaseException) -> str:
    return cause_in(str(error))
