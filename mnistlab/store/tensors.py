"""Tensors that a run keeps beside a result: read only where they are those whose sha256 the result says."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mnistlab.errors import DamagedError, RunDirectoryError
from mnistlab.store.layout import WEIGHTS, in_trial
from mnistlab.store.results import ReplicateResult


def weights_path(run: Path | str, one: ReplicateResult) -> Path:
    """Return where a run keeps the weights of a replicate."""
    return Path(run) / in_trial(one.trial, *one.place, WEIGHTS)


def read_weights(run: Path | str, one: ReplicateResult) -> bytes:
    """Return the weights of a replicate as safetensors bytes.

    Raises:
        RunDirectoryError: if they are missing, or not those that the run wrote.
    """
    return read_as_written(weights_path(run, one), one.weights_sha256)


def read_as_written(path: Path | str, sha256: str) -> bytes:
    """Return the content of a file beside `result.json`, which says its sha256.

    Raises:
        RunDirectoryError: if it can't be read.
        DamagedError: if it is another.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123, RUF100 - there may be thousands
            data = file.read()
    except OSError as error:
        raise RunDirectoryError(f"can't read {path}: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedError(path, "its sha256 is not the one in result.json")
    return data
