"""The champion's seeds together: said wherever a ranking is, with what a prediction costs, and never ranked."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mnistlab import events as ev
from mnistlab.console.dashboard.tables import confirmation_text
from mnistlab.console.plain import line
from mnistlab.console.ranking import notes
from mnistlab.console.state import ViewState, advance
from mnistlab.leaderboard import Leaderboard, rank
from mnistlab.leaderboard.prose.verdict import verdict
from mnistlab.python_api import SearchResult
from mnistlab.report import run_page as report
from mnistlab.report.as_json import as_data
from mnistlab.report.tables.columns import Section
from mnistlab.report.tables.data import json_text
from mnistlab.store.results import Cost, EnsembleResult, RunRecord, TestScore
from tests.leaderboard.test_ranking import order, record, replicates, trial
from tests.report import runs

COST = Cost(macs=1, latency_1=0.002, latency_256=0.1, device="a CPU")


def ensemble(**changes: Any) -> EnsembleResult:
    score = TestScore(correct=9_700, images=10_000, loss=0.1)
    about: dict[str, Any] = {"trial": "0001", "replicates": (0, 1, 2, 3, 4), "weights_sha256": ("a",) * 5}
    return EnsembleResult(**{**about, "test": score, "val_accuracy": 0.965, "time": "then", **changes})


def made(one: EnsembleResult | None, cost: Cost | None = COST) -> RunRecord:
    confirmed = [replace(done, cost=cost) for done in (*replicates(1, 0.95), *replicates(2, 0.80))]
    return replace(record(trial(1), trial(2), confirmed=confirmed), ensemble=one)


def board(one: EnsembleResult | None = None, cost: Cost | None = COST) -> Leaderboard:
    return rank(made(one or ensemble(), cost))


def note(of: Leaderboard) -> str:
    (found,) = [text for text in notes(of) if text.startswith("Ensemble")]
    return found


def test_the_verdict_says_score_and_cost() -> None:
    said = "; together, its 5 seeds: 97.00 % on test, at 5 times the cost of a prediction; on validation"
    assert said in verdict(board())
    assert "together" not in verdict(rank(made(None)))


def test_a_line_of_its_own_has_interval_validation_and_cost_and_ranks_nothing() -> None:
    assert note(board()) == (
        "Ensemble of the 5 seeds of trial 0001, not ranked: test accuracy 97.00 % (95 % interval 96.65-97.32 % for "
        "10,000 images), val_accuracy 96.50 %; a prediction costs 5 times that of one model (10 ms in place of 2 ms "
        "for one image)."
    )
    assert order(board()) == order(rank(made(None)))
    assert not [text for text in notes(rank(made(None))) if "Ensemble" in text]


def test_where_nothing_was_measured_nothing_is_said_of_it() -> None:
    text = note(board(ensemble(val_accuracy=None), cost=None))
    assert "no validation accuracy, because its models have no validation images in common" in text
    assert text.endswith("a prediction costs 5 times that of one model.")


def test_an_ensemble_of_a_plan_that_no_longer_leads_is_not_the_champions() -> None:
    other = board(ensemble(trial="0002"))
    assert other.ensemble is None
    assert "together" not in verdict(other)


def test_programs_get_members_score_interval_and_cost() -> None:
    (ranking,) = json.loads(json_text([Section(board(), board().rows)]))["rankings"]
    found = ranking["ensemble"]
    assert (found["trial"], found["replicates"], found["cost"]) == ("0001", [0, 1, 2, 3, 4], 5)
    assert (found["test_accuracy"], found["val_accuracy"], found["test_images"]) == (0.97, 0.965, 10_000)
    assert found["test_low"] < 0.97 < found["test_high"]
    none = rank(made(None))
    assert json.loads(json_text([Section(none, none.rows)]))["rankings"][0]["ensemble"] is None


def test_python_has_it() -> None:
    result = SearchResult(path=Path("x"), leaderboard=board(), record=made(ensemble()), end=None)
    assert result.ensemble == ensemble()


def test_the_report_says_it_in_words_and_as_data() -> None:
    plain = runs.record()
    champion = rank(plain).champion
    assert champion
    one = ensemble(trial=champion.trial, replicates=(1, 2, 3))
    page = report.page("r0", replace(plain, ensemble=one), runs.stream(plain))
    assert "together, its 3 seeds: 97.00 % on test" in page.verdict
    assert [text for text in page.methods if text.startswith("Ensemble of the 3 seeds")]
    data = as_data([page])["runs"][0]["ensemble"]
    assert (data["trial"], data["replicates"], data["test"]) == (champion.trial, [1, 2, 3], asdict(one.test))


@pytest.mark.parametrize(("val", "said"), [(0.965, ", val_accuracy 96.50 %"), (None, "")])
def test_views_of_lines_and_the_dashboard_say_it(stamped, val: float | None, said: str) -> None:
    event = ev.EnsembleEvaluated(trial="0000", members=3, test_accuracy=0.97, images=10_000, val_accuracy=val)
    (one,) = stamped([(1.0, event)])
    state = advance(ViewState(), one)
    text = line(one, state)
    assert text is not None
    assert text.endswith(
        f"] trial 0000, its 3 seeds together: test accuracy 97.00 %{said}; a prediction costs 3 times that of one"
    )
    assert confirmation_text(state).endswith("; 0000, its 3 seeds together: test accuracy 97.00 %")
