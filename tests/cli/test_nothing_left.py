"""What `resume` and `retry` say of a run of which nothing is left to do, and before they go on with one."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest

from mnistlab import events
from mnistlab.cli.search import print_ranking
from mnistlab.store import RunWriter, read_run
from mnistlab.store.results import TrialResult
from tests.conftest import RunCli
from tests.tuning.test_reopen import FILE

pytestmark = pytest.mark.simulated

ASSET = Path(__file__).parents[1] / "assets" / "run-of-format-1"
NEXT = "Next: mnistlab leaderboard runs/golden-1"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has ended well, in the folder in which commands are typed."""
    return Path(shutil.copytree(ASSET, tmp_path / "runs" / "golden-1"))


def test_nothing_left_is_one_line_and_what_to_type(run: Path, run_here: RunCli) -> None:
    done = run_here("resume", "golden-1", "--ui", "plain")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [
        "mnistlab: nothing is left to do: each of 3 trials has ended; give it more by --trials",
        NEXT,
    ]
    done = run_here("retry", "golden-1", "--failed", "--set", "resources.max_parallel=1", "--ui", "plain")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [
        "mnistlab: nothing is left to do: no trial has failed, and all else is done",
        NEXT,
    ]


def test_the_end_of_a_search_names_what_goes_on_with_what_is_left(run: Path) -> None:
    def told(*more: events.Event) -> list[str]:
        writer, text = RunWriter(run), io.StringIO()
        for event in more:
            writer.append(event)
        writer.close()
        print_ranking(run, end, text)
        return [line for line in text.getvalue().splitlines() if line.startswith("Next: ")]

    end = events.RunFinished(outcome="done", exit_code=0, counts={"complete": 3}, seconds=100.0)
    usual = [f"Next: mnistlab leaderboard {run}", f"Next: mnistlab report {run}"]
    assert told(end) == usual
    about: dict[str, Any] = {"command": "mnistlab resume", "parallel": 1, "devices": "1 CPU", "counts": {"complete": 3}}
    resumed = events.RunResumed(trials=9, time_budget=1.5, **about)
    plan = read_run(run).trials[0].plan
    begun = events.TrialStarted(trial="0003", number=3, seed=3, label="mlp", plan=plan)
    failed = events.TrialFailed(trial="0003", cause="worker", message="it went", epoch=0, log="trials/0003/log.txt")
    more = "99s"  # the run took 97
    assert told(resumed, begun, failed, end) == [
        f"Next: mnistlab resume {run} --time-budget {more}",
        f"Next: mnistlab retry {run} --failed --time-budget {more}",
        *usual,
    ]


def spent(run: Path, trials: int) -> None:
    """Let a fourth trial of the run fail, and its time be up."""
    plan = read_run(run).trials[0].plan
    about: dict[str, Any] = {"command": "mnistlab resume", "parallel": 1, "devices": "1 CPU", "counts": {"complete": 3}}
    changes = {"search.trials": trials, "search.time_budget": 60.0}
    failed = {"trial": "0003", "cause": "nan", "message": "the loss became nan"}
    writer = RunWriter(run)
    writer.append(events.RunResumed(trials=trials, time_budget=60.0, changes=changes, **about))
    writer.append(events.TrialStarted(trial="0003", number=3, seed=3, label="mlp", plan=plan))
    writer.write_trial(TrialResult(number=3, state="failed", seed=3, label="mlp", plan=plan, **failed))
    writer.append(events.TrialFailed(epoch=0, log="trials/0003/log.txt", **failed))
    writer.append(events.RunFinished(outcome="done", exit_code=0, counts={"complete": 3, "failed": 1}, seconds=97.0))
    writer.close()


@pytest.mark.parametrize(
    ("command", "trials", "said"),
    [
        ("retry", 4, "nothing is started: 1 trial failed, but the time is up; give it more by --time-budget 3m"),
        ("resume", 9, "nothing is started: the time is up after 4 of 9 trials; give it more by --time-budget 3m"),
        (
            "resume",
            4,
            "nothing is left to do: each of 4 trials has ended; give it more by --trials and --time-budget 3m",
        ),
    ],
)
def test_where_the_time_is_up_it_is_said_how_much_would_be_enough(
    run: Path, run_here: RunCli, command: str, trials: int, said: str
) -> None:
    spent(run, trials)
    done = run_here(command, "golden-1", *["--failed"][: command == "retry"], "--ui", "plain")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [f"mnistlab: {said}", NEXT]


def test_every_command_at_the_end_can_be_typed_wherever_the_run_lies(run: Path) -> None:
    run, text = run.rename(run.with_name("my run")), io.StringIO()
    print_ranking(run, events.RunFinished(outcome="interrupted", exit_code=130, counts={}, seconds=1.0), text)
    print_ranking(run, events.RunFinished(outcome="done", exit_code=0, counts={}, seconds=1.0), text)
    said = [line for line in text.getvalue().splitlines() if line.startswith("Next: ")]
    assert len(said) >= 3
    assert all(line.endswith(f" '{run}'") for line in said)


def test_retry_takes_the_changes_that_resume_takes_and_no_others(run: Path, run_here: RunCli) -> None:
    done = run_here("retry", "golden-1", "--failed", "--set", "seed=3")
    assert done.code == 2
    assert "[--set seed=3] can't be changed once a run has begun" in done.err


def test_a_file_that_adds_nothing_is_said_to(run: Path, run_here: RunCli, tmp_path: Path) -> None:
    (tmp_path / "same.toml").write_text(FILE.replace("[32, 64]", "32"))
    done = run_here("resume", "golden-1", "--amend", "same.toml", "--ui", "plain")
    assert (done.code, done.out) == (0, "")
    assert "mnistlab: same.toml adds nothing to the space of the run: it stays as it is\n" in done.err
    assert "nothing is left to do" in done.err
