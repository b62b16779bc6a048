"""What a `.pt2` file may hold before torch is allowed to read it: weights and a graph, nothing that runs code.

`torch.export.load` unpickles sample inputs, custom objects and files of older formats without restriction, evaluates
the symbolic sizes of a graph as text and takes any function of torch by its name. What `mnistlab export` writes has
need of none of this, so a file that asks for it is refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any, cast

from torch.export.pt2_archive import PT2ArchiveReader

from mnistlab.errors import DataError

_PLAIN = re.compile(r"archive_format|archive_version|byteorder|\.data/\w+|extra/mnistlab\.json|\.format_version")
_WEIGHTS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_GRAPH, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_TARGET = re.compile(
    r"torch\.ops\.(aten|higher_order)\.\w+(\.\w+)?|_operator\.(add|sub|mul|floordiv|mod|eq|ge|le|getitem)"
)
_ASSUMED = ("Symbol", "Integer", "positive", "nonnegative", "integer", "True", "False")
_ARITHMETIC = ("Mul", "Add", "Pow", "Max", "Min", "FloorDiv", "Mod", "Eq", "Ge", "Le", "Gt", "Lt")
_WORDS = frozenset(_ASSUMED + _ARITHMETIC)
LONGEST = 2000  # characters of a symbolic size; an exported model has less than 200
_POWER = re.compile(r"Pow\(Symbol\([^()]*\), Integer\([234]\)\)")
_LONG_NUMBER = re.compile(r"\d{13}")
_NAME = re.compile(r"'([su]\d+)'|\b([A-Za-z_]\w*)\b")


def check_pt2(data: bytes, place: str) -> None:
    """Refuse a `.pt2` file that holds more than weights and a graph of torch's own operators.

    Raises:
        DataError: saying what it holds.
    """
    if _is_old(data):
        raise DataError(f"{place} is of an old format that torch unpickles; it is not read")
    try:
        reader = PT2ArchiveReader(cast("Any", io.BytesIO(data)))
        names: list[str] = reader.get_file_names()
        bodies = {name: json.loads(reader.read_bytes(name)) for name in (*_CONFIGS, _GRAPH)}
        samples = len(reader.read_bytes(_SAMPLES))
    except Exception as error:  # whatever a reader says of a stranger's bytes
        raise DataError(f"{place} is no .pt2 file that mnistlab exported: {type(error).__name__}") from None
    for fault in _faults(names, samples, bodies):
        raise DataError(f"{place} is not read: it holds {fault}, which an exported model has no need of")


def _is_old(data: bytes) -> bool:
    """Return whether torch would take the content for an archive of an old format, which it reads by zipfile."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return "version" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _faults(names: list[str], samples: int, bodies: dict[str, Any]) -> Iterator[str]:
    known = {*_CONFIGS, _GRAPH, _SAMPLES}
    for name in names:
        if name not in known and not _PLAIN.fullmatch(name) and not _WEIGHTS.fullmatch(name):
            yield f"a part {name!r}"
    if samples:
        yield "pickled sample inputs"
    for config in _CONFIGS:
        for key, value in _pairs(bodies[config]):
            if key == "use_pickle" and value is not False:
                yield "pickled weights"
            if key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(value)):
                yield f"a payload {value!r}"
    for key, value in _pairs(bodies[_GRAPH]):
        if key in {"target", "as_operator"} and not (isinstance(value, str) and _TARGET.fullmatch(value)):
            yield f"an operator {str(value)[:80]!r}"
        if key == "expr_str" and not _harmless(value):
            yield f"a size {str(value)[:80]!r}"


def _harmless(text: object) -> bool:
    """Return whether a symbolic size is made of numbers, symbols and arithmetic alone: it is evaluated as text."""
    if not isinstance(text, str) or not re.fullmatch(r"[\w\s(),=+*/'-]*", text) or "__" in text:
        return False
    # Powers of powers and products of long numbers take longer to evaluate than anybody lives.
    if len(text) > LONGEST or "**" in text or "Pow" in _POWER.sub("", text) or _LONG_NUMBER.search(text):
        return False
    return "'" not in re.sub(r"'[su]\d+'", "", text) and all(
        word in _WORDS or re.fullmatch(r"[su]\d+", word) for _, word in _NAME.findall(text) if word
    )


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of nested JSON with its value, iteratively: a stranger's nesting may be deep."""
    waiting = [value]
    while waiting:
        now = waiting.pop()
        if isinstance(now, dict):
            for key, inner in cast("dict[str, Any]", now).items():
                yield key, inner
                waiting.append(inner)
        elif isinstance(now, list):
            waiting += cast("list[Any]", now)
