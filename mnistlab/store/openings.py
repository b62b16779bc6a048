"""The ledger of this machine: which runs have opened which test set. It lies in the cache, beside the datasets.

A test set that run after run is judged by wears out, however sealed each of them keeps it. One line is written for an
opening, with the name of its run and no path. Nothing about a run depends on it: who deletes it begins to count anew.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnistlab.store.files import append_to, mend_tail, refusals_told
from mnistlab.store.jsonl import encode_line, read_lines
from mnistlab.store.layout import RUN

OPENINGS = "openings.jsonl"
SCHEMA = "mnistlab.openings/1"
WAIT_SECONDS = 10.0  # for another driver that writes into it
_OF_THE_TEST = re.compile(r"(^|[-_./])(test|t10k)([-_./]|$)")


def key_of(sha256: Mapping[str, str]) -> str:
    """Return what a test set is told by: one sha256 of its files', by their names `test` or `t10k`, else of all files'.

    It is "" of a dataset that gives none.
    """
    own = [digest for name, digest in sha256.items() if _OF_THE_TEST.search(name)] or [*sha256.values()]
    return hashlib.sha256("\n".join(sorted(own)).encode()).hexdigest() if own else ""


def id_of(run: Path) -> str:
    """Return what tells a run from another one of its name: the beginning of the sha256 of its `run.json`."""
    return hashlib.sha256((run / RUN).read_bytes()).hexdigest()[:16]


def note_opening(cache: Path, entry: Mapping[str, Any]) -> int:
    """Write down that a run opens a test set; return how many other runs have done so before on this machine.

    `entry` says at least `run_id` and `sha256`. Drivers that do so at once wait for one another.

    Raises:
        OSError, MnistlabError: if it can't be read or written.
    """
    from filelock import FileLock  # noqa: PLC0415 - as where something is fetched

    path = cache / OPENINGS
    with refusals_told(path):
        cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{OPENINGS}.lock", timeout=WAIT_SECONDS):
        mend_tail(path)
        same = [one for one in read_lines(path) if one.get("sha256") == entry["sha256"]]
        append_to(path, encode_line({"schema": SCHEMA, **entry}), durably=True)
    return len({str(one.get("run_id")) for one in same} - {str(entry["run_id"])})
