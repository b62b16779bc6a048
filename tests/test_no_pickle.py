"""Nothing that runs what it reads: the source is walked for calls that unpickle, evaluate or unpack."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("mnistlab", "plugins")
    for path in (ROOT / folder).rglob("*.py")
    if not {"tests", ".venv", "build"} & set(path.relative_to(ROOT).parts)
)

# Modules whose every function reads back what somebody wrote as code or objects; modules that unpack archives.
MODULES = {"pickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "jsonpickle", "tarfile", "zipfile", "yaml"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
# Functions that read pickles, run what they read or unpack archives, by their whole name.
FUNCTIONS = {
    "joblib.load",
    "torch.load",
    "torch.export.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "numpy.load",
    "pandas.read_pickle",
    "shutil.unpack_archive",
    "ray.tune.Tuner.restore",
    "tune.Tuner.restore",
    "Tuner.restore",
}
# Methods of this kind, whatever they are called on.
METHODS = {"get_pickled_error", "extractall", "restore_from_dir"}

# (file, what) that is allowed, and why.
ALLOWED = {
    ("mnistlab/plugins/discovery.py", "exec"): "a plugin in a file is code, and running it is its purpose",
    ("mnistlab/plugins/discovery.py", "compile"): "as above",
    ("mnistlab/testing/base.py", "pickle"): "the kit asks whether a config survives the way to a worker: its own bytes",
    ("mnistlab/trained/formats/pt2.py", "torch.export.load"): "`export` reads back the bytes that it has just made",
}


def found_in(source: str) -> Iterator[str]:
    """What of all this a source uses: modules that it imports, functions that it calls or hands on."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    imports = [one for node in nodes if isinstance(node, ast.Import) for one in node.names]
    aliases = {one.asname: one.name for one in imports if one.asname}
    harmless = [node.func for node in nodes if isinstance(node, ast.Call) and _loads_weights_only(node)]
    yield from (name for one in imports if (name := one.name.partition(".")[0]) in MODULES)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            name = node.module.partition(".")[0]
            yield from [name] if name in MODULES else []
            yield from FUNCTIONS & {f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield node.id
        elif isinstance(node, ast.Attribute) and node not in harmless:
            yield from FUNCTIONS & {_dotted(node, aliases)} | METHODS & {node.attr}
        elif isinstance(node, ast.Call):
            yield from _of_call(node)


def _dotted(node: ast.Attribute, aliases: dict[str, str]) -> str:
    """The whole name of an attribute, with the name of a module in place of what it was imported as."""
    first, _, rest = ast.unparse(node).partition(".")
    return f"{aliases.get(first, first)}.{rest}"


def _loads_weights_only(node: ast.Call) -> bool:
    sure = any(one.arg == "weights_only" and ast.unparse(one.value) == "True" for one in node.keywords)
    return sure and ast.unparse(node.func) == "torch.load"


def _of_call(node: ast.Call) -> Iterator[str]:
    if any(one.arg == "allow_pickle" and ast.unparse(one.value) != "False" for one in node.keywords):
        yield "allow_pickle"
    if ast.unparse(node.func).rpartition(".")[2] == "import_module":
        yield from (one.value for one in node.args if isinstance(one, ast.Constant) and one.value in MODULES)


@cache
def uses() -> frozenset[tuple[str, str]]:
    """Every use in the sources: which file, what."""
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in SOURCES}
    return frozenset((name, one) for name, text in texts.items() for one in found_in(text))


def test_the_source_reads_no_pickles_and_runs_nothing_that_it_reads() -> None:
    assert len(SOURCES) > 150
    assert sorted(uses() - ALLOWED.keys()) == []


def test_every_exception_is_still_needed() -> None:
    assert sorted(ALLOWED.keys() - uses()) == []


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import pickle", "pickle"),
        ("import os, dill as d", "dill"),
        ("from cloudpickle import loads", "cloudpickle"),
        ("from zipfile import ZipFile", "zipfile"),
        ("import shelve, marshal", "marshal"),
        ("import yaml", "yaml"),
        ("import_module('pickle')", "pickle"),
        ("torch.load(path)", "torch.load"),
        ("torch.load(path, weights_only=False)", "torch.load"),
        ("torch.load(path, weights_only=sure)", "torch.load"),
        ("from torch import load", "torch.load"),
        ("read = torch.load", "torch.load"),
        ("import numpy as np\nnp.load(path)", "numpy.load"),
        ("from numpy import load", "numpy.load"),
        ("np.lib.format.read_array(f, allow_pickle=True)", "allow_pickle"),
        ("joblib.load(path)", "joblib.load"),
        ("from joblib import load", "joblib.load"),
        ("torch.export.load(path)", "torch.export.load"),
        ("shutil.unpack_archive(path)", "shutil.unpack_archive"),
        ("from shutil import unpack_archive", "shutil.unpack_archive"),
        ("archive.extractall('.')", "extractall"),
        ("eval(text)", "eval"),
        ("list(map(eval, texts))", "eval"),
        ("exec(text)", "exec"),
        ("import pandas as pd\npd.read_pickle(path)", "pandas.read_pickle"),
        ("tune.Tuner.restore(path)", "tune.Tuner.restore"),
        ("trial.get_pickled_error()", "get_pickled_error"),
    ],
)
def test_what_is_looked_for_is_found(source: str, what: str) -> None:
    assert what in set(found_in(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "re.compile(text)",
        "torch.load(path, weights_only=True)",
        "np.loadtxt(path)",
        "json.load(file)",
        "tomllib.load(file)",
        "safetensors.torch.load(data)",
        "joblib.cpu_count()",
        "torch.compile(module)",
    ],
)
def test_what_is_harmless_is_not(source: str) -> None:
    assert set(found_in(source)) == set()
