from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mnistlab import events as ev
from mnistlab.leaderboard import Leaderboard, rank
from mnistlab.store.results import ReplicateResult, RunRecord, TestScore, TrialResult
from tests.terminals import Cropping, Terminal

START = datetime(2026, 11, 22, 19, 0, tzinfo=UTC)
HOSTILE = "[/red]\x1b]0;x\x07\n\u202eevil"


def metrics(accuracy: float) -> dict[str, float]:
    return {"train_loss": 0.1, "val_loss": 0.2, "val_accuracy": accuracy, "images_per_second": 12_345.6, "seconds": 9.0}


def run_started(**changes: Any) -> ev.RunStarted:
    fields: dict[str, Any] = {
        "run": "cnn-1",
        "experiment": "experiments/cnn.toml",
        "directory": "runs/cnn-1",
        "seed": 0,
        "dataset": "mnist",
        "trials": 16,
        "epochs": 8,
        "parallel": 2,
        "devices": "2 CPUs",
        "metric": "val_accuracy",
        "rule": "the rule",
        "algorithm": "tpe",
        "scheduler": "asha",
    }
    return ev.RunStarted(**(fields | changes))


def stamp(timed: list[tuple[float, ev.Event]]) -> list[ev.Stamped]:
    return [
        ev.Stamped(seq=i, time=START + timedelta(seconds=t), t=t, event=event)
        for i, (t, event) in enumerate(timed, start=1)
    ]


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Makes terminals of a width, a height and a kind; they are closed when the test is over."""
    made: list[Terminal] = []

    def make(width: int = 100, height: int = 30, kind: type[Cropping] = Cropping) -> Terminal:
        made.append(Terminal(width, height, kind))
        return made[-1]

    yield make
    for one in made:
        one.hang_up()


@pytest.fixture
def stamped() -> Callable[[list[tuple[float, ev.Event]]], list[ev.Stamped]]:
    return stamp


@pytest.fixture
def recording() -> list[ev.Stamped]:
    """A small run in which everything happens that can happen."""
    label = "cnn depth=3 · adamw lr=0.003"
    return stamp(
        [
            (0.0, run_started()),
            (1.0, ev.TrialStarted(trial="0000", number=0, seed=1, label=label, plan={})),
            (1.5, ev.TrialStarted(trial="0001", number=1, seed=2, label="mlp width=64 · sgd lr=0.1", plan={})),
            (30.0, ev.TrialEpoch(trial="0000", epoch=1, epochs=8, metrics=metrics(0.97))),
            (61.0, ev.TrialEpoch(trial="0000", epoch=2, epochs=8, metrics=metrics(0.98))),
            (62.0, ev.TrialEpoch(trial="0001", epoch=1, epochs=8, metrics=metrics(0.90))),
            (63.0, ev.TrialPruned(trial="0001", epoch=1, metrics=metrics(0.90), seconds=61.5)),
            (64.0, ev.TrialStarted(trial="0002", number=2, seed=3, label="cnn depth=9 · sgd lr=9", plan={})),
            (
                90.0,
                ev.TrialFailed(trial="0002", epoch=0, cause="nan", message="loss is nan", log="trials/0002/log.txt"),
            ),
            (120.0, ev.TrialFinished(trial="0000", epoch=8, metrics=metrics(0.9912), seconds=119.0)),
            (120.0, ev.BestChanged(trial="0000", metric="val_accuracy", value=0.9912, label=label)),
            (121.0, ev.Warned(message="the time budget is nearly used up")),
            (130.0, ev.ConfirmationStarted(trials=("0000",), seeds=2)),
            (160.0, ev.ReplicateFinished(trial="0000", replicate=1, seed=70, metrics=metrics(0.99), seconds=30.0)),
            (170.0, ev.ReplicateFailed(trial="0000", replicate=2, seed=71, cause="memory", message="out of memory")),
            (171.0, ev.TestOpened(trials=("0000",), models=1, count=1)),
            (172.0, ev.RunInterrupted(reason="Ctrl-C")),
            (
                173.0,
                ev.RunFinished(
                    outcome="done", exit_code=0, counts={"complete": 1, "pruned": 1, "failed": 1}, seconds=173.0
                ),
            ),
        ]
    )


@pytest.fixture
def crowd() -> list[ev.Stamped]:
    """Forty running trials, failures and warnings, all with text that would like to be obeyed."""
    timed: list[tuple[float, ev.Event]] = [(0.0, run_started(dataset=HOSTILE, fallback=HOSTILE, trials=99))]
    for i in range(40):
        name = f"{i:04}"
        timed.append((1.0, ev.TrialStarted(trial=name, number=i, seed=i, label=f"{HOSTILE} {i}", plan={})))
        timed.append((2.0, ev.TrialEpoch(trial=name, epoch=1, epochs=8, metrics=metrics(0.9))))
    for i in range(5):
        name = f"{i:04}"
        timed.append((3.0, ev.TrialFailed(trial=name, epoch=1, cause="plugin", message=HOSTILE, log="log.txt")))
        timed.append((4.0, ev.Warned(message=HOSTILE)))
    timed.append((5.0, ev.TrialFinished(trial="0030", epoch=8, metrics=metrics(0.99), seconds=4.0)))
    timed.append((5.0, ev.BestChanged(trial="0030", metric="val_accuracy", value=0.99, label=HOSTILE)))
    return stamp(timed)


def plan(name: str, width: int) -> dict[str, Any]:
    return {
        "model": {"name": name, "plugin": f"mnistlab:{name}", "version": "0.1.0", "config": {"width": width}},
        "optimizer": {"name": "adamw", "config": {"lr": 0.001 * width}},
        "transforms": [],
        "training": {"epochs": 4, "batch_size": 128},
    }


def trial(number: int, state: Any, accuracy: float, name: str = "cnn", **changes: Any) -> TrialResult:
    fields: dict[str, Any] = {
        "plan": plan(name, 8 + number),
        "label": "",
        "history": ({"val_accuracy": accuracy},) * 4,
        "metrics": {"val_accuracy": accuracy, "parameters": 120_000 + number},
        "seconds": 12.0,
    }
    return TrialResult(trial=f"{number:04}", number=number, state=state, seed=number, **(fields | changes))


def replicate(number: int, seed: int, correct: int) -> ReplicateResult:
    return ReplicateResult(
        trial=f"{number:04}",
        replicate=seed,
        seed=seed,
        metrics={"val_accuracy": correct / 10_000},
        seconds=31.0,
        val_correct="1" * correct + "0" * (10_000 - correct),
        test=TestScore(correct=correct + seed, images=10_000, loss=0.1),
    )


@pytest.fixture
def make_board() -> Callable[..., Leaderboard]:
    def make(gap: int = 60, lose: Any = lambda made: made, **changes: Any) -> Leaderboard:
        run = {
            "run": "cnn-1",
            "metric": "val_accuracy",
            "metrics": ["val_accuracy"],
            "rule": "the mean over fresh seeds decides",
            "dataset": {"name": "mnist", "requested": "mnist", "fallback": ""},
        }
        trials = (
            trial(0, "complete", 0.99),
            trial(1, "complete", 0.991),
            trial(2, "pruned", 0.95, history=({"val_accuracy": 0.95},)),
            trial(3, "failed", 0.1, cause="plugin", message=f"boom {HOSTILE}"),
            trial(4, "complete", 0.97, name="resnet"),
        )
        confirmed = [replicate(n, seed, 9_950 - gap * n - seed) for n in (0, 1) for seed in range(5)]
        record = RunRecord(
            path="runs/cnn-1", run=run | changes, trials=trials, replicates=tuple(lose(confirmed)), test_openings=1
        )
        return rank(record)

    return make
