"""How many trials and how many replicates a run has at once, whichever way it is begun or resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mnistlab import events
from mnistlab.api import DataPlace
from mnistlab.cli.check import check
from mnistlab.experiment import loader
from mnistlab.store import read_events
from mnistlab.tuning import resources, run
from mnistlab.tuning.context import Search
from mnistlab.tuning.executors import EXECUTORS
from mnistlab.tuning.reopen import reopen_search
from mnistlab.tuning.resources import Machine
from tests.simulated.driving import registry

TEXT = 'name = "x"\n[data]\ndataset = "digits"\n[model.mlp]\n'
LEARNT = "{} trials at once instead of 26: auto learns from trials that ended; set resources.max_parallel to run more"
Given = list[tuple[str, int, float]]


@contextmanager
def unseen(_: Path) -> Iterator[Callable[[object], None]]:
    yield lambda _: None


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """What searches and confirmations would be carried out, and with how many workers of which share of a GPU."""
    found: Given = []

    def noting(kind: str) -> Callable[..., None]:
        def note(job: Search, *_: object) -> None:
            assert (job.shared.gpus > 0) == (job.share.gpus > 0)
            found.append((kind, job.share.parallel, job.share.gpus))

        return note

    there = replace(EXECUTORS["ray"], joined=lambda *_: nullcontext(Machine(26, 2, gpu_gib=80.0)))
    monkeypatch.setitem(EXECUTORS, "ray", there)
    monkeypatch.setattr(run, "require_shared", lambda *_: None)  # asks the nodes of a real Ray
    monkeypatch.setattr(run, "run_search", noting("search"))
    monkeypatch.setattr(run, "confirm", noting("confirm"))
    monkeypatch.setattr(run, "go_on", lambda *_: None)
    return found


def options(folder: Path) -> run.Options:
    place = DataPlace(data_dir=None, cache=folder / "cache", offline=True)
    return run.Options(runs=folder / "runs", place=place, address=None, command="x")


def begun(folder: Path, *overrides: str) -> Path:
    (folder / "x.toml").write_text(TEXT)
    wanted = loader.load(folder / "x.toml", overrides, registry())
    return run.search(wanted, options(folder), registry(), unseen).path


def told(path: Path, kind: type[Any]) -> list[Any]:
    return [stamped.event for stamped in read_events(path) if isinstance(stamped.event, kind)]


def about_workers(path: Path) -> list[str]:
    return [event.message for event in told(path, events.Warned) if "at once" in event.message]


@pytest.mark.parametrize(
    ("overrides", "trials", "said"),
    [
        ((), 8, [LEARNT.format(8)]),
        (("search.trials=12",), 3, [LEARNT.format(3)]),
        (("search.trials=400",), 26, []),
        (("search.algorithm=random",), 26, []),
        (("search.algorithm=random", "search.scheduler=pbt"), 26, []),
        (("resources.max_parallel=16",), 16, []),
    ],
)
def test_a_search_holds_back_and_its_confirmation_does_not(
    tmp_path: Path, given: Given, overrides: Sequence[str], trials: int, said: list[str]
) -> None:
    path = begun(tmp_path, *overrides)
    replicates = 16 if "resources.max_parallel=16" in overrides else 26
    parts = {3: 0.5, 8: 0.25, 16: 0.125, 26: 0.0769}  # of a GPU: none of the two is left idle
    assert given == [("search", trials, parts[trials]), ("confirm", replicates, parts[replicates])]
    assert about_workers(path) == said
    (started,) = told(path, events.RunStarted)
    assert (started.parallel, started.parallel_replicates) == (trials, replicates)


def test_a_resume_with_more_trials_follows_the_same_rule(tmp_path: Path, given: Given) -> None:
    path = begun(tmp_path)
    given.clear()
    found = reopen_search(path, options(tmp_path).place, ["search.trials=48"])
    run.resume(found, options(tmp_path), unseen)
    assert given == [("search", 12, 0.1666), ("confirm", 26, 0.0769)]
    assert about_workers(path) == [LEARNT.format(8), LEARNT.format(12)]
    (resumed,) = told(path, events.RunResumed)
    assert (resumed.parallel, resumed.parallel_replicates) == (12, 26)


def test_check_says_how_many_trials_are_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resources, "this_machine", lambda: Machine(26, 0))
    (tmp_path / "x.toml").write_text(TEXT)
    check(tmp_path / "x.toml", no_plugins=True)
    shown = capsys.readouterr().out.splitlines()
    assert shown[-3] == "Devices: 26 CPUs; 8 trials in parallel, 1 CPU each"
    assert (shown[-2], shown[-1].partition(":")[0]) == (LEARNT.format(8), "Proposals")
    check(tmp_path / "x.toml", ["resources.max_parallel=26"], no_plugins=True)
    shown = capsys.readouterr().out.splitlines()
    assert shown[-3] == "Devices: 26 CPUs; 26 trials in parallel, 1 CPU each"
    assert shown[-2].startswith("26 of 32 trials at once: auto proposes every plan before enough trials ended")
    check(tmp_path / "x.toml", ["search.algorithm=random"], no_plugins=True)
    assert capsys.readouterr().out.splitlines()[-2] == "Devices: 26 CPUs; 26 trials in parallel, 1 CPU each"
