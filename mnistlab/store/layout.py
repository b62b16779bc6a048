"""The files of a run directory by name and format, and which formats this version reads."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

RUN_SCHEMA = "mnistlab.run/1"
RESULT_SCHEMA = "mnistlab.result/1"
LEDGER_SCHEMA = "mnistlab.ledger/1"
CONFIRMATION_SCHEMA = "mnistlab.confirmation/1"
RUN, RESULT = "run.json", "result.json"
EVENTS, LEDGER, CONFIRMATION = "events.jsonl", "test_ledger.jsonl", "confirmation.jsonl"  # files of checksummed lines
WEIGHTS = "weights.safetensors"
PER_IMAGE = "per_image.safetensors"
LOCK = ".lock"
AMENDED = re.compile(r"run-([2-9]|[1-9]\d+)\.json")  # the records that take the place of `run.json`, one after another
STUDY = tuple(f"study.db{kind}" for kind in ("", "-journal", "-wal", "-shm"))
# What a driver writes into, or has others write into, right inside a run directory.
WRITTEN = (RUN, EVENTS, LEDGER, CONFIRMATION, "driver.log", "trials", "plugins", "ray", "tensorboard", *STUDY)


def newest_record(run: Path) -> int:
    """Return the number of the newest record of a run directory; 1, that of `run.json`, where it was never amended."""
    names: list[str] = []
    with suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(run)
    return max((int(found[1]) for name in names if (found := AMENDED.fullmatch(name))), default=1)


def refusal(found: object, schema: str) -> str:
    """Return in words why a file of format `found` is not read where `schema` is due; "" where it is read.

    A version reads its own format. Once there is a second one, it reads the one before as well.
    """
    if found == schema:
        return ""
    family, _, number = schema.partition("/")
    start, _, other = found.partition("/") if isinstance(found, str) else ("", "", "")
    newer = start == family and other.isascii() and other.isdigit() and int(other) > int(number)
    hint = "; a newer mnistlab wrote it: update this one to read it" if newer else ""
    return f"has format {found!r}; this mnistlab reads {schema!r}{hint}"
