"""Observers are told of every trial that ends, aside: what they raise is a warning, and none holds up a search."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from mnistlab.api import TrialRecord
from mnistlab.plugins import observers
from mnistlab.plugins.observers import Observers
from tests.conftest import WithPlugins


def ended(trial: str) -> TrialRecord:
    return TrialRecord(trial=trial, state="complete", plan={}, seed=1, metrics={"val_accuracy": 0.9})


def heard(with_plugins: WithPlugins, *names: str) -> tuple[Observers, list[str]]:
    """Those of these distributions, and what the one that notes its trials has seen."""
    found = Observers(with_plugins(*names))
    return found, sys.modules["observer_plugin"].seen


def test_an_observer_that_fails_is_reported_and_the_others_are_told(with_plugins: WithPlugins) -> None:
    found, seen = heard(with_plugins, "broken-observer", "observer")
    said = [*found.tell(ended("0007")), *found.tell(ended("0008")), *found.close()]
    assert seen == ["0007", "0008"]
    title = "broken-observer 1.0 (broken_observer_plugin)"
    assert said == [f"{title}: mnistlab_trial_finished raised LookupError: no such dashboard"] * 2


def test_plugins_that_observe_nothing_cost_no_thread(with_plugins: WithPlugins) -> None:
    found = Observers(with_plugins("healthy"))
    before = threading.active_count()
    assert [*found.tell(ended("0007"))] == []
    assert threading.active_count() == before
    assert [*found.close()] == []


def test_each_is_called_in_one_thread_of_its_own(with_plugins: WithPlugins, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = heard(with_plugins, "observer")
    threads = list[int]()
    noting = SimpleNamespace(append=lambda _: threads.append(threading.get_ident()))
    monkeypatch.setattr(sys.modules["observer_plugin"], "seen", noting)
    for number in range(3):
        assert [*found.tell(ended(f"{number:04}"))] == []
    assert [*found.close()] == []
    assert len(threads) == 3
    assert len(set(threads) - {threading.get_ident()}) == 1


def test_one_that_hangs_holds_up_nothing_and_is_left_behind(
    with_plugins: WithPlugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observers, "CLOSE_SECONDS", 0.5)
    found, _ = heard(with_plugins, "observer")
    called, goes_on = list[str](), threading.Event()

    def hangs(trial: str) -> None:
        called.append(trial)
        goes_on.wait()

    monkeypatch.setattr(sys.modules["observer_plugin"], "seen", SimpleNamespace(append=hangs))
    began = time.monotonic()
    assert [*found.tell(ended("0007")), *found.tell(ended("0008"))] == []
    title = "observer 1.0 (observer_plugin)"
    assert [*found.close()] == [f"{title}: mnistlab_trial_finished has not returned, and is left behind"]
    assert called == ["0007"]
    assert time.monotonic() - began < 30
    goes_on.set()


def test_one_that_ends_its_thread_is_reported_and_told_of_the_next_trial(
    with_plugins: WithPlugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = heard(with_plugins, "observer")
    called = list[str]()

    def leaves(trial: str) -> None:
        called.append(trial)
        sys.exit("no such dashboard")

    monkeypatch.setattr(sys.modules["observer_plugin"], "seen", SimpleNamespace(append=leaves))
    said = [*found.tell(ended("0007")), *found.tell(ended("0008")), *found.close()]
    assert called == ["0007", "0008"]
    title = "observer 1.0 (observer_plugin)"
    assert said == [f"{title}: mnistlab_trial_finished raised SystemExit: no such dashboard"] * 2


def test_all_that_hang_are_waited_for_together(with_plugins: WithPlugins, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = heard(with_plugins, "broken-observer", "observer")
    now, waits = 1000.0, list[float]()

    def waits_in_vain(seconds: float) -> None:
        nonlocal now
        waits.append(seconds)
        now += seconds

    hangs = SimpleNamespace(start=lambda: None, join=waits_in_vain, is_alive=lambda: True)
    monkeypatch.setattr(observers, "threading", SimpleNamespace(Thread=lambda **_: hangs))
    monkeypatch.setattr(observers, "time", SimpleNamespace(monotonic=lambda: now))
    assert [*found.tell(ended("0007"))] == []
    assert [said.partition(" 1.0 ")[0] for said in found.close()] == ["broken-observer", "observer"]
    assert waits == [observers.CLOSE_SECONDS, 0.0]


HANGS = """
import threading
from types import SimpleNamespace
import pluggy
from mnistlab.plugins import hookspecs, observers
from mnistlab.api import TrialRecord, hookimpl


class Hangs:
    @hookimpl
    def mnistlab_trial_finished(self, trial):
        threading.Event().wait()


manager = pluggy.PluginManager("mnistlab")
manager.add_hookspecs(hookspecs)
manager.register(Hangs())
observers.CLOSE_SECONDS = 0.2
found = observers.Observers(SimpleNamespace(plugins=[SimpleNamespace(title="hangs", manager=manager)]))
print(*found.tell(TrialRecord(trial="0007", state="complete", plan={}, seed=1, metrics={})), *found.close())
"""


def test_one_that_never_returns_does_not_keep_its_process_alive() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "hangs: mnistlab_trial_finished has not returned, and is left behind\n"
