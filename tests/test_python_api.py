"""`mnistlab.search` and `mnistlab.open_run` from Python: what is asked for, and what is made of a run directory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mnistlab
from mnistlab import events, python_api
from mnistlab.errors import MnistlabError, SpecError
from mnistlab.experiment.spec import parse_override
from mnistlab.store import RunWriter, create_run
from mnistlab.tuning import run
from tests.leaderboard.test_ranking import record, replicates, trial

HOSTILE = "<script>boom</script>\x1b[31m"
HEAVY = ("torch", "torchvision", "ray", "optuna", "rich", "pydantic", "numpy", "pandas", "scipy", "sklearn", "IPython")


def end(**changes: Any) -> events.RunFinished:
    return events.RunFinished(**({"outcome": "done", "exit_code": 0, "counts": {}, "seconds": 61.0} | changes))


def write(root: Path, made: Any, last: events.RunFinished | None) -> Path:
    """Write a run directory as a driver does."""
    path = create_run(root, "cnn", datetime(2026, 11, 22, tzinfo=UTC))
    writer = RunWriter(path)
    writer.write_run(made.run)
    for result in made.trials:
        writer.write_trial(result)
    for result in made.replicates:  # a run counts them from 1; 0 is the refit
        writer.write_replicate(replace(result, replicate=result.replicate + 1))
    if last:
        writer.append(last)
    writer.close()
    return path


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    def mlp(**config: Any) -> dict[str, Any]:
        return {**trial(0).plan, "model": {"name": "mlp", "config": config}}

    made = record(
        trial(0, 0.9),
        trial(1, 0.8, "pruned", 2),
        trial(2, state="failed", epochs=0, cause="plugin", message=HOSTILE),
        trial(3, 0.5, plan=mlp(width=64, bias=True)),
        trial(4, 0.4, plan=mlp(width=32, bias=False)),
        confirmed=replicates(0, 0.9, seeds=3),
    )
    return write(tmp_path / "runs", made, end())


# --- what was found -----------------------------------------------------------------------------------------------


def test_a_run_says_how_it_ended_and_what_is_best(finished: Path) -> None:
    result = mnistlab.open_run(finished)
    assert (result.path, result.outcome, result.exit_code) == (finished, "done", 0)
    assert result.best is result.leaderboard.rows[0]
    assert result.best.trial == "0000"
    assert len(result.record.replicates) == 3
    assert mnistlab.open_run(finished.name, runs=finished.parent).path == finished


def test_trials_are_rows_in_the_order_of_the_ranking(finished: Path) -> None:
    trials = mnistlab.open_run(finished).trials
    assert list(zip(trials["rank"], trials["trial"], trials["state"], trials["model"], strict=True)) == [
        ("1", "0000", "confirmed", "cnn"),
        ("2", "0003", "complete", "mlp"),
        ("3", "0004", "complete", "mlp"),
        ("4", "0001", "pruned", "cnn"),
        ("-", "0002", "failed", "cnn"),
    ]
    first, last = trials.iloc[0], trials.iloc[-1]
    assert first["val_accuracy"] == pytest.approx(0.9)
    assert first["val_accuracy_n"] == first["test_accuracy_n"] == 3
    assert first["test_low"] < first["test_accuracy"] < first["test_high"]
    assert first["test_accuracy_sd"] > 0
    assert first["seconds"] == 20  # of one training, on fresh seeds
    assert (last["cause"], last["message"]) == ("plugin", HOSTILE)
    assert trials["val_accuracy"].isna().tolist() == [False, False, False, False, True]
    assert trials["test_accuracy"].isna().tolist() == [False, True, True, True, True]


def test_what_was_searched_has_a_column_each_and_keeps_its_type(finished: Path) -> None:
    trials = mnistlab.open_run(finished).trials.set_index("trial")
    assert trials["model.cnn.channels"].dropna().to_dict() == {"0000": 16, "0001": 17, "0002": 18}
    types = trials.dtypes.astype(str).to_dict()
    assert types["model.cnn.channels"] == types["model.mlp.width"] == types["parameters"] == "Int64"
    assert types["model.mlp.bias"] == "boolean"
    assert types["val_accuracy"] == types["test_low"] == "float64"
    assert types["epochs"] == "int64"
    assert not [name for name in types if name.startswith(("optimizer.", "training."))]  # the same in all trials


def test_other_metrics_of_the_run_are_columns_too(tmp_path: Path) -> None:
    made = record(trial(0), trial(1, 0.8), metrics=["val_accuracy", "parameters", "val_loss"])
    trials = mnistlab.open_run(write(tmp_path, made, end())).trials
    assert trials["parameters"].tolist() == [1_000, 1_001]
    assert trials["val_loss"].tolist() == pytest.approx([0.1, 0.2])
    assert trials.columns.is_unique


def test_the_learning_curves_are_rows_of_trials_and_epochs(finished: Path) -> None:
    epochs = mnistlab.open_run(finished).epochs
    assert epochs.groupby("trial")["epoch"].agg(list).to_dict() == {
        "0000": [1, 2, 3, 4],
        "0001": [1, 2],
        "0003": [1, 2, 3, 4],
        "0004": [1, 2, 3, 4],
    }
    assert epochs.pivot_table(index="epoch", columns="trial", values="val_accuracy").loc[2, "0001"] == 0.8


def test_a_run_in_which_nothing_has_ended_is_an_empty_result(tmp_path: Path) -> None:
    result = mnistlab.open_run(write(tmp_path, record(), None))
    assert (result.outcome, result.exit_code, result.best) == ("", None, None)
    assert list(result.trials.columns) == ["rank", "trial", "state"]
    assert list(result.epochs.columns) == ["trial", "epoch"]
    assert "without an end, 0 trials, no trial used its full budget" in repr(result)
    assert "No trial has ended yet" in str(result)


def test_a_result_can_be_read_in_a_terminal(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = mnistlab.open_run(finished)
    assert repr(result) == f"<SearchResult {finished}: done, 5 trials, best trial 0000, cnn · adamw>"
    text = str(result)
    assert "\x1b" not in text
    assert "val_accuracy %" in text
    assert "Run over: done; no trial ended in 1m01s, exit code 0." in text
    table = text.splitlines()[3:9]
    assert max(map(len, table)) <= 90


def test_a_notebook_shows_the_ranking_and_nothing_in_it_takes_effect(finished: Path) -> None:
    html = mnistlab.open_run(finished)._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;boom&lt;/script&gt;\\x1b[31m" in html
    assert "confirmed" in html


def test_a_run_that_is_not_there_is_the_users_mistake(finished: Path) -> None:
    with pytest.raises(MnistlabError, match="did you mean 'cnn-2026-11-22-1'"):
        mnistlab.open_run("cnn-2026-11-22-2", runs=finished.parent)


# --- what was asked for -------------------------------------------------------------------------------------------


class Driver:
    """Stands in for the driver of a run: it takes note of what it was asked, and has written a run already."""

    def __init__(self, path: Path) -> None:
        self.path, self.end = path, end()
        self.experiment: Any = None
        self.options: Any = None
        self.view: Any = None

    def search(self, experiment: Any, options: Any, _registry: Any, view: Any) -> run.Finished:
        self.experiment, self.options, self.view = experiment, options, view
        return run.Finished(self.path, self.end)

    def open_view(self) -> AbstractContextManager[Callable[[events.Stamped], None]]:
        return self.view(self.path)


@pytest.fixture
def driver(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver(finished)
    monkeypatch.setattr(run, "search", made.search)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.toml"
    path.write_text('name = "x"\n[data]\ndataset = "digits"\n[model.mlp]\n')
    return path


def test_the_arguments_are_those_of_the_command_line(driver: Driver, file: Path, tmp_path: Path) -> None:
    overrides = {"training.epochs": 4, "model.mlp.width": [32, 64], "search.scheduler": "none"}
    result = mnistlab.search(
        file, set=overrides, trials=3, time_budget="2m", seed=9, data_dir="~/d", runs=tmp_path / "r", address="h:1"
    )
    assert isinstance(result, mnistlab.SearchResult)
    assert (result.path, result.exit_code) == (driver.path, 0)
    spec = driver.experiment.spec
    assert (spec.seed, spec.search.trials, spec.search.time_budget, spec.search.scheduler) == (9, 3, 120.0, "none")
    assert spec.model == {"mlp": {"width": [32, 64]}}
    assert driver.experiment.space.epochs == 4
    assert driver.options.place.data_dir == Path("~/d").expanduser()
    assert (driver.options.runs, driver.options.address) == (tmp_path / "r", "h:1")


def test_the_run_records_a_call_that_does_it_again(driver: Driver, file: Path) -> None:
    mnistlab.search(str(file))
    assert driver.options.command == f"mnistlab.search({str(file)!r})"
    mnistlab.search(str(file), set=["training.epochs=2"], trials=3)
    first = driver.experiment.spec
    eval(driver.options.command, {"mnistlab": mnistlab})
    assert driver.experiment.spec == first


VALUES = [3, -1, 0.5, 1e-5, True, False, "gelu", 'quo"ted = \\text', "é\U0001f600", "", [1, 2], ["a", "b"], (0.1, 0.2)]


@pytest.mark.parametrize("value", [*VALUES, {"low": 1, "high": 64, "log": True}, {"a-b.c": [{"d": "e"}]}], ids=repr)
def test_every_value_arrives_as_it_was_given(value: Any, monkeypatch: pytest.MonkeyPatch, finished: Path) -> None:
    seen: list[str] = []

    def run_file(_file: Path, overrides: list[str], **_: Any) -> run.Finished:
        seen.extend(overrides)
        return run.Finished(finished, end())

    monkeypatch.setattr(python_api, "run_file", run_file)
    mnistlab.search("x.toml", set={"a.b": value, "n": np.int64(7), "f": np.float32(0.5), "p": Path("d/e")})
    expected = list(value) if isinstance(value, tuple) else value
    assert [parse_override(text) for text in seen] == [
        (("a", "b"), expected),
        (("n",), 7),
        (("f",), 0.5),
        (("p",), "d/e"),
    ]


def test_values_that_no_file_could_hold_are_named_all_at_once(file: Path) -> None:
    with pytest.raises(SpecError) as caught:
        mnistlab.search(file, set={"training.epochs": None, "seed": 1, "model.mlp.width": {"low": object()}})
    assert [fault.place for fault in caught.value.faults] == ["set training.epochs", "set model.mlp.width"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"set": {"training.epoch": 4}}, "did you mean 'epochs'"),
        ({"set": "training.epoch"}, "section.key=value"),
        ({"trials": 0}, "search.trials"),
        ({"time_budget": "soon"}, "search.time_budget"),
        ({"ui": "lively"}, "must be one of"),
        ({"plugins": ["nowhere.py"]}, "nowhere.py"),
    ],
)
def test_mistakes_are_errors_of_mnistlab(arguments: Any, said: str, file: Path) -> None:
    with pytest.raises(MnistlabError, match=said):
        mnistlab.search(file, **arguments)


# --- how it ends --------------------------------------------------------------------------------------------------


def test_an_interrupted_search_returns_what_there_is(driver: Driver, file: Path) -> None:
    driver.end = end(outcome="interrupted", exit_code=130)
    result = mnistlab.search(file)
    assert (result.outcome, result.exit_code) == ("interrupted", 130)
    assert len(result.trials) == 5


def test_an_interrupt_before_the_search_has_begun_goes_on(driver: Driver, file: Path, tmp_path: Path) -> None:
    driver.path, driver.end = tmp_path / "gone", end(outcome="interrupted", exit_code=130)
    with pytest.raises(KeyboardInterrupt):
        mnistlab.search(file)


def test_a_signal_that_ends_the_process_still_does(driver: Driver, file: Path) -> None:
    taken: list[int] = []
    driver.end = end(outcome="interrupted", exit_code=143)
    before = signal.signal(signal.SIGTERM, lambda number, _frame: taken.append(number))
    try:
        mnistlab.search(file)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert taken == [signal.SIGTERM]


# --- how it is shown ----------------------------------------------------------------------------------------------


@pytest.fixture
def displays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a notebook whose kernel this process pretends to be is asked to display."""
    shown: list[str] = []
    publisher = SimpleNamespace(publish=lambda data, **_: shown.append(data["text/html"]))
    shell = SimpleNamespace(kernel=object(), display_pub=publisher)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    return shown


@pytest.mark.parametrize(
    ("ui", "variable", "is_html"),
    [
        ("auto", "", True),
        ("live", "", True),
        ("full", "plain", True),
        ("auto", "live", True),
        ("auto", "quiet", False),
        ("plain", "", False),
        ("quiet", "", False),
    ],
)
def test_in_a_notebook_the_dashboard_is_html(
    ui: str,
    variable: str,
    is_html: bool,
    driver: Driver,
    file: Path,
    displays: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MNISTLAB_UI", variable)
    mnistlab.search(file, ui=ui)
    with driver.open_view():
        pass
    assert bool(displays) == is_html


def test_elsewhere_it_is_what_the_command_line_shows(
    driver: Driver, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mnistlab.search(file, ui="json")
    with driver.open_view() as handle:
        handle(events.Stamped(seq=1, time=datetime.now(UTC), t=0.0, event=end()))
    out, err = capsys.readouterr()
    assert json.loads(out)["type"] == "run_finished"
    assert err == ""


# --- what it costs ------------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_importing_mnistlab_imports_nothing_heavy_until_it_is_used() -> None:
    look = f"""
import sys, mnistlab
assert {{"search", "open_run", "load_model", "SearchResult", "__version__"}} <= set(dir(mnistlab))
assert not hasattr(mnistlab, "nothing")
print(sorted(set({HEAVY!r}) & set(sys.modules)))
from mnistlab import load_model
print(load_model.__module__, "torch" in sys.modules, "ray" in sys.modules)
from mnistlab import search
print(search.__module__, "ray" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "mnistlab.trained.loading True False", "mnistlab.python_api True"]
    assert done.stderr == ""
