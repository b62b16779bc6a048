"""Breaks the product on purpose, one break at a time, and says which test finds it: `python -m tests.breaks`.

A break is put into a copy of the tree, so that nothing here changes. `README.md` beside this file says more.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.breaks.patches import TABLE, Break, NoSuchBreakError, patch_file, read_patch, table

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 600.0  # that the tests of one break may take
LEAVE_SECONDS = 30.0  # that tests which are stopped may take to clear up
LEFT_OUT = (
    ".git",
    ".venv",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "build",
    "dist",
    "runs",
    "shared",
    "node_modules",
)
_REPORT = re.compile(r"^(?:FAILED|ERROR) (.+?)(?= - |$)", re.MULTILINE)


def main() -> int:
    """Try the breaks that the command line names; return 1 if one of them is not found."""
    arguments = _arguments()
    chosen = _chosen(arguments.names, every=arguments.all)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun, missed = time.monotonic(), list[str]()
    with tempfile.TemporaryDirectory(prefix="mnistlab-breaks-") as folder:
        tree = Path(folder, "tree")
        shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        if arguments.unbroken:
            tests = dict.fromkeys(test for one in chosen for test in arguments.tests or one.tests)
            failed = _failure(tree, [*tests])
            print(f"without a break: {failed or 'every test passes'}", flush=True)
            missed += ["nothing at all"] if failed else []
        for one in chosen:
            found = _found_by(tree, one, arguments.tests or one.tests)
            missed += [] if found.startswith("found by ") else [one.name]
            print(f"{one.name}: {found}", flush=True)
    minutes = (time.monotonic() - begun) / 60
    print(f"{len(chosen)} breaks in {minutes:.1f} minutes; not found: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.breaks", description="Which test finds which break?")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a break, for example 007 or 007-no-flush")
    parser.add_argument("--all", action="store_true", help="every break of the table")
    parser.add_argument("--tests", nargs="+", metavar="SELECTION", help="run these tests instead of the table's")
    parser.add_argument("--unbroken", action="store_true", help="run the tests without a break first: all must pass")
    arguments = parser.parse_args()
    if bool(arguments.names) == arguments.all:
        parser.error("name one break or more, or say --all")
    return arguments


def _chosen(names: Sequence[str], *, every: bool) -> list[Break]:
    known = table()
    chosen = [one for one in known if every or one.name in names or one.name[:3] in names]
    if strange := [name for name in names if not any(name in (one.name, one.name[:3]) for one in chosen)]:
        raise SystemExit(f"no break is named {', '.join(strange)}; see {TABLE}")
    return chosen


def _found_by(tree: Path, one: Break, tests: Sequence[str]) -> str:
    """Return in words which test fails with the break in the tree, which then is as it was."""
    try:
        patch = read_patch(patch_file(one.name))
        file = tree / patch.path
        before = file.read_text(encoding="utf-8")
        _write(file, patch.changed(before))
    except (NoSuchBreakError, OSError) as error:
        return f"can't be tried: {error}"
    began = time.monotonic()
    try:
        failed = _failure(tree, tests)
    finally:
        _write(file, before)
    return f"{failed or 'NOT FOUND'} ({time.monotonic() - began:.0f} s)"


def _write(file: Path, text: str) -> None:
    """Write a module, without what was compiled of it: that is told by size and second alone."""
    file.write_text(text, encoding="utf-8")
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
        compiled.unlink()


def _failure(tree: Path, tests: Sequence[str]) -> str:
    """Run tests in a tree up to the first one that fails; return it in words, or "" where none does."""
    options = ["-x", "-q", "-rfE", "--tb=no", "--no-header", "-p", "no:cacheprovider", "--color=no"]
    plugins = sorted(map(str, (tree / "plugins").glob("*/")))
    path = os.pathsep.join([str(tree), *plugins, *filter(None, [os.environ.get("PYTHONPATH")])])
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "500"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which passes it on once
    )
    try:
        said, _ = running.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"NOT FOUND: its tests had not ended after {LIMIT_SECONDS:.0f} s"
    finally:
        _end(running)
    if running.returncode == 0:
        return ""
    found = _REPORT.search(said)
    if running.returncode == 1 and found:
        return f"found by {found[1]}"
    return f"NOT FOUND: no test could be run:\n{said.strip()}"


def _end(running: subprocess.Popen[str]) -> None:
    """End tests that still run, with all that they have started."""
    if running.poll() is None:
        running.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            running.communicate(timeout=LEAVE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
