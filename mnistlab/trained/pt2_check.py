"""What a `.pt2` file may hold before torch is allowed to read it: weights and a graph, nothing that runs code.

`torch.export.load` unpickles sample inputs, custom objects and files of older formats without restriction, evaluates
the symbolic sizes of a graph as text, makes a function of the text of its guards and takes any function of torch by its
name. What `mnistlab export` writes has need of none of this, so a file that asks for it is refused.

Arithmetic can do harm too: a tower of powers is evaluated while the file is read, for ever, and a single constant can
ask for more memory than there is. Both are bounded. What a graph does step by step with what it is given is not: a
model that joins a tensor with itself again and again takes what memory it gets, as one that is slow takes time.
"""

from __future__ import annotations

import ast
import io
import json
import math
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
_GUARD = re.compile(r"L\['\w+'\]\.size\(\)\[\d\] (==|<=|>=|<|>) \d{1,9}")
_TO_THE_END = 2**63 - 1  # how a slice says that it goes to the end
_GREATEST = 2**31  # an integer of a graph
_ELEMENTS = 2**28  # of what a list of sizes describes: 1 GiB of float32
_NODES = 100_000
_LONGEST, _DIGITS = 1_000, 12  # of a symbolic size: characters, and digits of a number
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
    yield from _graph_faults(bodies[_GRAPH])


def _graph_faults(graph: Any) -> Iterator[str]:
    for key, value in _pairs(graph):
        if key in {"target", "as_operator"} and not (isinstance(value, str) and _TARGET.fullmatch(value)):
            yield f"an operator {str(value)[:80]!r}"
        if key == "expr_str" and not _harmless(value):
            yield f"a size {str(value)[:80]!r}"
        if key == "guards_code" and not _all_guards(value):
            yield f"a condition {str(value)[:80]!r}"
        if key == "nodes" and isinstance(value, list) and len(cast("list[Any]", value)) > _NODES:
            yield f"a graph of more than {_NODES} steps"
        if key in {"as_int", "as_ints"} and not _moderate(value):
            yield f"a number {str(value)[:80]!r}"


def _all_guards(value: Any) -> bool:
    """Return whether these are comparisons of an input's size with a number alone: torch runs them as code."""
    if not isinstance(value, list):
        return False
    return all(isinstance(one, str) and _GUARD.fullmatch(one) for one in cast("list[Any]", value))


def _moderate(value: Any) -> bool:
    """Return whether an integer, or a list of them, can't ask for more memory than a machine has."""
    numbers = cast("list[Any]", value if isinstance(value, list) else [value])
    if not all(isinstance(one, int) and (abs(one) <= _GREATEST or one == _TO_THE_END) for one in numbers):
        return False
    return len(numbers) < 2 or math.prod(max(1, abs(one)) for one in numbers) <= _ELEMENTS


def _harmless(text: object) -> bool:
    """Return whether a symbolic size is made of numbers, symbols and arithmetic alone: it is evaluated as text."""
    if not isinstance(text, str) or not re.fullmatch(r"[\w\s(),=+*/'-]*", text) or "__" in text:
        return False
    if len(text) > _LONGEST or re.search(rf"\d{{{_DIGITS + 1}}}", text) or not _small_powers(text):
        return False
    return "'" not in re.sub(r"'[su]\d+'", "", text) and all(
        word in _WORDS or re.fullmatch(r"[su]\d+", word) for _, word in _NAME.findall(text) if word
    )


def _small_powers(text: str) -> bool:
    """Return whether every power has a small number as exponent and none stands in another.

    They are evaluated on reading: `Pow(9, Pow(9, Pow(9, 9)))` would never end.
    """
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if any(isinstance(node, ast.Pow) for node in nodes):
        return False
    powers = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "Pow"]
    return all(_is_small(one) for one in powers)


def _is_small(power: ast.Call) -> bool:
    """Return whether it is `Pow(base, number)` with a number of one digit and no power in its base."""
    if len(power.args) != 2 or power.keywords:
        return False
    base, exponent = map(ast.unparse, power.args)
    return "Pow" not in base and re.fullmatch(r"-?\d|Integer\(-?\d\)", exponent) is not None


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
