"""What a report at the end of a rung means, and what a trial takes along to its next one."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from mnistlab.experiment import loader
from mnistlab.store.results import RungResult, TrialResult, epochs_of, to_json, trial_from_json
from mnistlab.training import loop
from mnistlab.tuning.history import PastTrial
from mnistlab.tuning.outcome import Interruptions, ends_rung, outcome_of
from mnistlab.tuning.schedulers.halving import Ladder, Rung, numbered
from mnistlab.tuning.searcher import Bridge, SearcherOptions
from mnistlab.tuning.study import new_study
from mnistlab.tuning.work import task_of
from mnistlab.tuning.worker import trial
from mnistlab.tuning.worker.output import NotCaptured
from tests.simulated.driving import registry

REPORT: dict[str, Any] = {"epoch": 2, "epochs": 2, "val_accuracy": 0.9}
METRICS = ("val_accuracy",)


@pytest.mark.parametrize(
    ("report", "ends"),
    [
        (REPORT | {"budget": 2.0}, True),
        (REPORT | {"budget": 2.0, "epoch": 1}, False),
        (REPORT | {"budget": 2.0, "val_accuracy": float("nan")}, False),
        (REPORT | {"budget": 2.0, "cause": "nan"}, False),
        (REPORT, False),  # the full budget
        ({}, False),
        (None, False),
    ],
)
def test_a_good_training_of_less_than_the_full_budget_ends_a_rung(report, ends):
    assert ends_rung(report, METRICS) is ends


def test_only_the_full_budget_is_complete_whatever_cuts_it_short():
    assert outcome_of(REPORT, metrics=METRICS, interruption="Ctrl-C").state == "complete"
    assert outcome_of(REPORT | {"budget": 2.0}, metrics=METRICS, interruption="Ctrl-C").state == "interrupted"
    assert outcome_of(REPORT | {"budget": 2.0}, metrics=METRICS).state == "pruned"


def test_a_task_says_at_which_rung_and_what_was_spent_below():
    task = json.loads(task_of({}, 1, "", rung=Rung(1, 2.0), spent=3.5)["task"])
    assert (task["rung"], task["budget"], task["spent"]) == (1, 2.0, 3.5)
    top = json.loads(task_of({}, 1, "", rung=Rung(2, 8.0, last=True))["task"])
    assert top["rung"] == 2
    assert not {"budget", "spent"} & set(top)
    assert not {"rung", "budget", "spent"} & set(json.loads(task_of({}, 1, "")["task"]))


def result(**more: Any) -> TrialResult:
    return TrialResult(trial="0000", number=0, state="pruned", seed=0, plan={}, label="", **more)


def test_a_result_with_rungs_comes_back_from_json_and_one_without_says_nothing_of_them():
    rungs = (RungResult(rung=0, budget=0.5, metrics={"val_accuracy": 0.9}, seconds=1.5),)
    one = result(history=({"val_accuracy": 0.9},), budget=0.5, rungs=rungs)
    assert trial_from_json(json.loads(json.dumps(to_json(one)))) == one
    assert not {"budget", "rungs"} & set(to_json(result()))


@pytest.mark.parametrize(
    ("more", "epochs"),
    [
        ({"history": ({}, {})}, 2),
        ({"history": ({},), "budget": 0.5}, 0.5),
        ({"history": ({},), "budget": 2.0}, 1),  # cut short in the middle
        ({"rungs": (RungResult(rung=0, budget=0.5, metrics={}, seconds=1.0),), "budget": 2.0}, 0.5),
        ({}, 0),
    ],
)
def test_how_far_a_trial_came(more, epochs):
    assert epochs_of(result(**more)) == epochs


def test_a_trial_that_needed_all_of_a_device_gets_it_again_when_it_is_promoted(tmp_path):
    (tmp_path / "x.toml").write_text('name = "x"\n[data]\ndataset = "digits"\n[model.mlp]\n[search]\ntrials = 8\n')
    wanted = loader.load(tmp_path / "x.toml", (), registry())
    ladder = Ladder(numbered([1.0, 8.0]), factor=4)
    study, cut = new_study(wanted.spec, wanted.space), Interruptions(lambda: "")
    options = SearcherOptions(parallel=1, interruptions=cut, ladder=ladder)
    bridge = Bridge(study, wanted.space, wanted.spec, options)
    for number in range(4):
        task = json.loads(bridge.suggest(f"t{number}")["task"])
        ended = RungResult(rung=0, budget=1.0, metrics={"val_accuracy": 0.9 - number / 10}, seconds=2.5)
        one = PastTrial(name=f"{number:04}", number=number, seed=0, plan=task["plan"], rungs=(ended,), waits=True)
        bridge.pauses(f"t{number}", one, room=number == 0)
    promoted = json.loads(bridge.suggest("t4")["task"])
    assert (promoted["resumes"], promoted["rung"], promoted["room"], promoted["spent"]) == ("t0", 1, True, 2.5)
    assert bridge.going_on["t4"].waits


def test_what_lower_rungs_took_counts_into_the_limit_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[float | None, float]] = []
    watch: Any = SimpleNamespace(
        begin=lambda limit, spent=0.0: begun.append((limit, spent)), over=nullcontext, step=lambda: None
    )
    monkeypatch.setattr(trial, "ready", lambda _: (None, None))
    monkeypatch.setattr(loop, "begin", lambda *_: SimpleNamespace(history=[{"seconds": 1.0}]))
    shared: Any = SimpleNamespace(trial_seconds=9.0, checkpoint_seconds=1.0)
    task = task_of({}, 1, "", rung=Rung(1, 2.0), spent=3.5)["task"]
    trial.Worker(shared, NotCaptured(), watch).begin(task)
    assert begun[-1] == (9.0, 4.5)
