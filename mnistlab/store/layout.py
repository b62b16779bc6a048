"""The files of a run directory: how each is called, where it lies, its format, and which formats this version reads."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

RUN_SCHEMA = "mnistlab.run/1"
RESULT_SCHEMA = "mnistlab.result/1"
LEDGER_SCHEMA = "mnistlab.ledger/1"
CONFIRMATION_SCHEMA = "mnistlab.confirmation/1"
# Right inside a run directory.
RUN, EVENTS, LEDGER, CONFIRMATION = "run.json", "events.jsonl", "test_ledger.jsonl", "confirmation.jsonl"
LOCK, DRIVER_LOG, STUDY = ".lock", "driver.log", "study.db"
TRIALS, PLUGINS, RAY, TENSORBOARD, QUARANTINE = "trials", "plugins", "ray", "tensorboard", "quarantine"
AMENDED = re.compile(r"run-([2-9]|[1-9]\d+)\.json")  # the records that take the place of `run.json`, one after another
_STUDY_FILES = tuple(f"{STUDY}{kind}" for kind in ("", "-journal", "-wal", "-shm"))
WRITTEN = (RUN, EVENTS, LEDGER, CONFIRMATION, DRIVER_LOG, TRIALS, PLUGINS, RAY, TENSORBOARD, *_STUDY_FILES)
"""What a driver writes into, or has others write into."""
# In the folder of a trial; a replicate has a folder of its own in there.
RESULT, LOG, WEIGHTS, PER_IMAGE = "result.json", "log.txt", "weights.safetensors", "per_image.safetensors"
REPLICATES, REFIT_FOLDER, CHECKPOINTS = "replicates", "refit", "checkpoints"
MANIFEST, STATE = ".json", ".safetensors"  # the two files of a checkpoint
ANY_MANIFEST = f"epoch-*{MANIFEST}"

FOREIGN = re.compile(rf"({RAY}|{TENSORBOARD}|mlruns|{QUARANTINE})")
"""The folders that others (Ray, the trackers) or a repair make: not looked into."""
_PLAN = r"(\d{4,} | baseline(-([2-9]|[1-9]\d+))?)"  # a trial, or the plan of all defaults that no trial had
OWN = re.compile(
    rf"""\.lock | run(-([2-9]|[1-9]\d+))?\.json | (events|confirmation|test_ledger)\.jsonl | driver\.log | plugins/[^/]+
    | study\.db(-journal|-wal|-shm)? | trials/{_PLAN}/log\.txt | trials/\d{{4,}}/result\.json
    | trials/{_PLAN}/(replicates/\d+ | refit)/(result\.json | (weights | per_image)\.safetensors)
    | trials/\d{{4,}}/checkpoints/epoch-\d{{5,}}\.(json | safetensors)""",
    re.VERBOSE,
)
"""The files of a run, relative to its directory."""


def trial_name(number: int) -> str:
    """Return the name of trial `number` (from 0), which is that of its folder: `0007`."""
    return f"{number:04d}"


def in_trial(trial: str, *names: str) -> str:
    """Return where the folder of a trial lies, or what `names` lead to in it, relative to the run directory."""
    return "/".join((TRIALS, trial, *names))


def checkpoint_file(epoch: int, kind: str) -> str:
    """Return the name of a checkpoint's MANIFEST or STATE in the folder of checkpoints."""
    return f"epoch-{epoch:05}{kind}"


def record_name(number: int) -> str:
    """Return the file that holds a run's record `number`: `run.json`, then `run-2.json`, `run-3.json`, ..."""
    return RUN if number == 1 else f"run-{number}.json"


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
