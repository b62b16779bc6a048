"""Whole searches in which nodes lack something, devices break and machines fail: whom it is held against."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from mnistlab import events
from mnistlab.errors import ExitCode, MachineError
from mnistlab.experiment import loader
from mnistlab.store import read_run
from mnistlab.store.fsck import check
from mnistlab.tuning import run
from mnistlab.tuning.reopen import reopen_search
from tests.simulated.controller import World
from tests.simulated.driving import Case, options_in, registry, without_ray

pytestmark = pytest.mark.simulated


@dataclass
class Searched:
    """What came of a search: its events, and the error by which it ended, if it did."""

    path: Path
    told: list[events.Event] = field(default_factory=list[events.Event])
    error: MachineError | None = None

    def of(self, *kinds: type[events.Event]) -> list[events.Event]:
        return [event for event in self.told if isinstance(event, kinds)]

    @property
    def said(self) -> list[str]:
        return [event.message for event in self.told if isinstance(event, events.Warned)]

    @property
    def states(self) -> list[tuple[str, str]]:
        return sorted({(one.state, one.cause) for one in read_run(self.path).trials})


Drive = Callable[[Case], Searched]


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    """Search in a world, or resume what an earlier call has left."""
    options = options_in(tmp_path)

    def drive(case: Case) -> Searched:
        done, there = Searched(tmp_path), list((tmp_path / "runs").glob("*"))
        view = nullcontext(lambda stamped: done.told.append(stamped.event))
        file = tmp_path / "x.toml"
        file.write_text(case.text)
        with without_ray(case, tmp_path):
            try:
                if there:
                    run.resume(reopen_search(there[0], options.place), options, lambda _: view)
                else:
                    run.search(loader.load(file, (), registry()), options, registry(), lambda _: view)
            except MachineError as error:
                done.error = error
        (done.path,) = (tmp_path / "runs").iterdir()
        assert check(done.path).sound
        return done

    return drive


CASE = Case("random", "asha", trials=8, epochs=3, parallel=3, world=World(failing=0.0))


def in_world(**about: object) -> Case:
    return replace(CASE, world=replace(CASE.world, **about))  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", ["data", "disk"])
def test_a_node_that_lacks_something_is_named_once_and_costs_no_trial(drive: Drive, cause: str) -> None:
    done = drive(in_world(nodes={"10.0.0.1": "", "10.0.0.2": cause}))
    assert done.error is None
    assert {state for state, _ in done.states} <= {"complete", "pruned"}
    assert len(read_run(done.path).trials) == CASE.trials
    named = [text for text in done.said if text.startswith("node 10.0.0.2 ")]
    assert len(named) == 1
    assert "gets no more trials" in named[0]
    tries = [event.attempt for event in done.told if isinstance(event, events.TrialStarted)]
    assert 1 <= sum(attempt > 1 for attempt in tries) <= CASE.parallel  # those that were there already


@pytest.mark.parametrize(
    ("lacks", "code"),
    [
        (("data", "data"), ExitCode.DATA_OR_PLUGIN),
        (("missing", "version"), ExitCode.DATA_OR_PLUGIN),
        (("disk", "disk"), ExitCode.RESOURCES_VANISHED),
        (("data", "disk"), ExitCode.RESOURCES_VANISHED),
    ],
)
def test_only_when_no_node_is_left_the_search_ends_and_a_resume_finishes_it(
    drive: Drive, lacks: tuple[str, str], code: ExitCode
) -> None:
    done = drive(in_world(nodes=dict(zip(("10.0.0.1", "10.0.0.2"), lacks, strict=True))))
    assert done.error is not None
    assert done.error.exit_code == code
    assert "no node is left to train on: node 10.0.0." in str(done.error)
    assert "mnistlab resume" in str(done.error)
    assert done.states == [("interrupted", "")]  # nothing is held against a plan
    again = drive(in_world(nodes={"10.0.0.1": ""}))  # the other one is mended, or gone
    assert again.error is None
    assert len(read_run(again.path).trials) == CASE.trials
    assert {state for state, _ in again.states} <= {"complete", "pruned"}


def test_one_machine_is_one_node(drive: Drive) -> None:
    done = drive(in_world(nodes={"127.0.0.1": "disk"}))
    assert done.error is not None
    assert str(done.error).startswith("no node is left to train on: this machine has no room left on a disk")


def test_a_file_that_one_node_alone_lacks_is_the_nodes_and_the_trial_goes_to_another(drive: Drive) -> None:
    done = drive(in_world(nodes={"10.0.0.1": "", "10.0.0.2": "absent"}))
    assert done.error is None
    assert {state for state, _ in done.states} <= {"complete", "pruned"}
    assert len([text for text in done.said if text.startswith("node 10.0.0.2 lacks a file or a module")]) == 1


def test_a_file_that_no_node_has_is_the_plans_fault_and_no_nodes(drive: Drive) -> None:
    done = drive(in_world(nodes={"10.0.0.1": "", "10.0.0.2": ""}, doomed=(2, "absent")))
    assert done.error is None
    (failed,) = done.of(events.TrialFailed)
    assert (failed.trial, failed.cause) == ("0002", "plugin")  # type: ignore[attr-defined]
    assert [text for text in done.said if "gets no more" in text] == []


@pytest.mark.parametrize(("parallel", "cause", "state"), [(3, "plugin", "PRUNED"), (1, "device", "FAIL")])
def test_a_plan_that_breaks_the_device_fails_alone_after_three_more_tries(
    drive: Drive, parallel: int, cause: str, state: str
) -> None:
    """It is told as infeasible where others trained on the same device meanwhile: then the device is in order."""
    case = replace(in_world(nodes={"10.0.0.1": ""}, doomed=(4, "device")), parallel=parallel)
    done = drive(case)
    (failed,) = done.of(events.TrialFailed)
    assert (failed.trial, failed.cause) == ("0004", cause)  # type: ignore[attr-defined]
    starts = [event for event in done.told if isinstance(event, events.TrialStarted) and event.trial == "0004"]
    assert [event.attempt for event in starts] == [1, 2, 3, 4]
    assert len(read_run(done.path).trials) == CASE.trials
    (study,) = optuna.get_all_study_names(f"sqlite:///{done.path / 'study.db'}")
    there = optuna.load_study(study_name=study, storage=f"sqlite:///{done.path / 'study.db'}")
    assert there.trials[4].state == TrialState[state]


def test_a_node_with_a_broken_device_swallows_no_trials(drive: Drive) -> None:
    done = drive(in_world(nodes={"10.0.0.1": "", "10.0.0.2": "device"}))
    assert done.error is None
    assert {state for state, _ in done.states} <= {"complete", "pruned"}
    assert (
        len(
            [
                text
                for text in done.said
                if text.startswith("node 10.0.0.2 loses its device in one trial after the other")
            ]
        )
        == 1
    )


def test_a_machine_whose_device_is_broken_ends_the_search_and_no_plan_is_blamed(drive: Drive) -> None:
    done = drive(in_world(nodes={"127.0.0.1": "device"}))
    assert done.error is not None
    assert done.error.exit_code == ExitCode.RESOURCES_VANISHED
    assert "this machine loses its device in one trial after the other" in str(done.error)
    assert done.states == [("interrupted", "")]


@pytest.mark.parametrize("cause", ["system", "worker"])
def test_a_machine_that_fails_every_trial_ends_the_search_and_no_plan_is_blamed(drive: Drive, cause: str) -> None:
    done = drive(in_world(nodes={"127.0.0.1": cause}))
    assert done.error is not None
    assert done.error.exit_code == ExitCode.RESOURCES_VANISHED
    assert f"5 trials in a row failed through no fault of their plans ({cause} 5)" in str(done.error)
    assert {state for state, _ in done.states} == {"failed", "interrupted"}
    again = drive(in_world(nodes={"127.0.0.1": ""}))  # what failed then is no reason to end now
    assert again.error is None
    assert len(read_run(again.path).trials) == CASE.trials
