"""Fixtures shared by all tests."""

from __future__ import annotations

import functools
import gzip
import itertools
import os
import signal
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from alembic.util import pyfiles

from mnistlab.plugins.discovery import discover, selection
from mnistlab.plugins.registry import Registry, load, select
from mnistlab.testing.fixtures import Lab, Ran
from mnistlab.util import seal

# Whoever starts the tests in the background, or by nohup, may have these ignored, and every child would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Each study.db that is opened would read the migrations of Optuna's tables anew: a tenth of a second each time.
pyfiles.load_module_py = functools.cache(pyfiles.load_module_py)


FOUR_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _real(name: str, file: str) -> Path:
    """The folder `name` in the one that MNISTLAB_TEST_DATA names; without it, the test is skipped."""
    folder = Path(os.environ.get("MNISTLAB_TEST_DATA", "")) / name
    if "MNISTLAB_TEST_DATA" not in os.environ or not (folder / file).is_file():
        pytest.skip(f"needs the real {name} files: set MNISTLAB_TEST_DATA to the folder that holds {name}/")
    return folder


DISTS = Path(__file__).parent / "dists"
# Packages of this repository that have tests of their own; importing them would cost every command here seconds.
PACKAGES = sorted(path.parent.name for path in (Path(__file__).parents[1] / "plugins").glob("*/pyproject.toml"))


_caches = itertools.count()


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the data, the cache or the network of whoever runs it, unless it says so itself."""
    monkeypatch.delenv("MNISTLAB_DATA", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    # Of its own: what one test has opened is no matter of another one's verdict.
    monkeypatch.setenv("MNISTLAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache" / str(next(_caches))))
    monkeypatch.setenv("MNISTLAB_OFFLINE", "1")
    monkeypatch.setenv("MNISTLAB_DISABLE", ",".join(PACKAGES))


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """What a worker does to its process for good is undone where a test does a worker's work itself."""
    yield
    seal._sealed = 0
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder with the four real MNIST archives."""
    return _real("mnist", "train-images-idx3-ubyte.gz")


@pytest.fixture(scope="session")
def qmnist_folder() -> Path:
    """The folder with QMNIST's label files."""
    return _real("qmnist", "qmnist-train-labels.tsv.gz")


def idx_bytes(values: np.ndarray) -> bytes:
    """An IDX file of uint8 values, as bytes."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


WriteFour = Callable[..., dict[str, bytes]]


@pytest.fixture
def write_four() -> WriteFour:
    """Write four small IDX files into a folder: 60 + 20 images, three classes; returns the decompressed bytes."""

    def write(folder: Path, *, compress: bool = True, shape: tuple[int, ...] = (6, 5), seed: int = 0):
        generator = np.random.default_rng(seed)
        folder.mkdir(parents=True, exist_ok=True)
        contents: dict[str, bytes] = {}
        for name in FOUR_NAMES:
            count = 60 if name.startswith("train") else 20
            values = generator.integers(256, size=(count, *shape)) if "images" in name else np.arange(count) % 3
            contents[name] = idx_bytes(values)
            path = folder / (f"{name}.gz" if compress else name)
            path.write_bytes(gzip.compress(contents[name], mtime=0) if compress else contents[name])
        return contents

    return write


WithPlugins = Callable[..., Registry]


@pytest.fixture
def with_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[WithPlugins]:
    """Put distributions of `tests/dists` on the path and load all plugins as a new process would."""
    before = set(sys.modules)

    def load_them(*names: str) -> Registry:
        for name in names:
            assert (DISTS / name).is_dir(), name
            monkeypatch.syspath_prepend(DISTS / name)
        return load(discover(), selection())

    yield load_them
    for name in set(sys.modules) - before:
        if name.endswith("_plugin"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def builtins() -> Registry:
    """The plugins that are really installed here."""
    return load(discover())


RunCli = Callable[..., Ran]


@pytest.fixture
def run_cli(tmp_path: Path) -> RunCli:
    """Run the installed `mnistlab` in an empty folder; each run costs some seconds, because torch is imported."""

    def run(*arguments: object, **environment: str) -> Ran:
        command = [str(Path(sys.executable).parent / "mnistlab"), *map(str, arguments)]
        environ = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        done = subprocess.run(  # noqa: PLW1510 - the code is what the tests look at
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@contextmanager
def path_extended(folders: str) -> Iterator[None]:
    """Have `folders` first on the path, as PYTHONPATH has them, and forget what was imported from there."""
    places, before = [Path(folder).resolve() for folder in filter(None, folders.split(os.pathsep))], set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        for place in reversed(places):
            patch.syspath_prepend(place)
        select.cache_clear()
        yield
    select.cache_clear()
    for name in set(sys.modules) - before:
        file = Path(getattr(sys.modules[name], "__file__", None) or "/")
        if "site-packages" not in file.parts and any(file.is_relative_to(place) for place in places):
            del sys.modules[name]


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    print(warnings.formatwarning(message, category, filename, lineno), end="", file=sys.stderr)


@contextmanager
def started_in(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Be a process that was started in `folder` with `environment`, and that shows warnings as Python does."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(warnings, "showwarning", _show_warning)
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        patch.chdir(folder)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "dont_write_bytecode", "PYTHONDONTWRITEBYTECODE" in environment)
        if "PYTHONPATH" not in environment:
            yield
            return
        with path_extended(environment["PYTHONPATH"]):
            yield


def here(folder: Path) -> RunCli:
    """Return what runs commands as `run_cli` does, but in this process: that costs no start, and undoes what it did.

    What is written below Python's own streams, as to /dev/stdout, is seen by `run_cli` alone.
    """

    def run(*arguments: object, **environment: str) -> Ran:
        with started_in(folder, environment):
            return Lab(folder).run(*arguments)

    return run


@pytest.fixture
def run_here(tmp_path: Path) -> RunCli:
    """Run commands in this process, in an empty folder."""
    return here(tmp_path)
