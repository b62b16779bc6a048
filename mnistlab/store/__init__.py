"""The run directory: what a search leaves behind. The driver is its only writer.

Truth is `run.json` (written once; an amendment is a record of its own beside it), `events.jsonl` (append only) and the
results under `trials/`. Results are written to a temporary file, flushed to the disk and renamed, so that a file is
either whole or not there; an event is one write of one line with its own checksum, so that a torn tail is seen and
skipped.
"""

from mnistlab.store.files import open_to_write, write_bytes, write_json
from mnistlab.store.jsonl import read_lines
from mnistlab.store.layout import (
    AMENDED,
    CONFIRMATION,
    CONFIRMATION_SCHEMA,
    EVENTS,
    LEDGER,
    LEDGER_SCHEMA,
    PER_IMAGE,
    RESULT_SCHEMA,
    RUN_SCHEMA,
    WEIGHTS,
    newest_record,
    refusal,
)
from mnistlab.store.locking import holder, is_running
from mnistlab.store.openings import id_of, key_of, note_opening
from mnistlab.store.per_image import pack_per_image, with_per_image
from mnistlab.store.reading import NoSuchRunError, find_run, find_runs, named, read_events, read_json, read_run, stamped
from mnistlab.store.tensors import read_weights, weights_path
from mnistlab.store.writing import RunWriter, create_run

__all__ = [
    "AMENDED",
    "CONFIRMATION",
    "CONFIRMATION_SCHEMA",
    "EVENTS",
    "LEDGER",
    "LEDGER_SCHEMA",
    "PER_IMAGE",
    "RESULT_SCHEMA",
    "RUN_SCHEMA",
    "WEIGHTS",
    "NoSuchRunError",
    "RunWriter",
    "create_run",
    "find_run",
    "find_runs",
    "holder",
    "id_of",
    "is_running",
    "key_of",
    "named",
    "newest_record",
    "note_opening",
    "open_to_write",
    "pack_per_image",
    "read_events",
    "read_json",
    "read_lines",
    "read_run",
    "read_weights",
    "refusal",
    "stamped",
    "weights_path",
    "with_per_image",
    "write_bytes",
    "write_json",
]
