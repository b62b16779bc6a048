from __future__ import annotations

import signal
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mnistlab.events import Event, StopAsked
from mnistlab.tuning.session import cut_short
from mnistlab.util import signals
from mnistlab.util.signals import TERM_SECONDS, Requests, hear_early, signals_as, signals_held

ENDS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ENDS)
def test_the_first_signal_asks_and_the_second_insists_once_a_trial_has_begun(number: signal.Signals) -> None:
    requests = Requests()
    requests.begun = True
    with signals_as(requests):
        assert not requests()
        assert requests.reason() == ""
        signal.raise_signal(number)
        assert requests()
        assert requests.signal == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert requests.signal == number  # the first one says how the run ends


@pytest.mark.parametrize("number", ENDS)
def test_before_any_trial_has_begun_the_first_signal_ends_the_run(number: signal.Signals) -> None:
    requests = Requests()
    with signals_as(requests), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert requests.signal == number


@pytest.mark.parametrize(("number", "limited"), list(zip(ENDS, [False, True, True], strict=True)))
def test_all_but_ctrl_c_set_a_limit_to_how_long_the_end_may_take(number: signal.Signals, limited: bool) -> None:
    requests = Requests()
    requests.begun = True
    with signals_as(requests):
        signal.raise_signal(number)
        left = signal.getitimer(signal.ITIMER_REAL)[0]
        assert (0 < left <= TERM_SECONDS) == limited
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGALRM)  # as the timer does at its end
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize(("number", "words"), list(zip(ENDS, ["Ctrl-C", "SIGTERM", "SIGHUP"], strict=True)))
def test_who_asked_in_words(number: signal.Signals, words: str) -> None:
    requests = Requests()
    requests.signal = number
    assert requests.reason() == words


@pytest.mark.parametrize("number", [*ENDS, signal.SIGALRM])
def test_once_the_run_is_over_there_is_nothing_to_stop(number: signal.Signals) -> None:
    requests = Requests()
    requests.over = True
    with signals_as(requests):
        signal.raise_signal(number)
    assert not requests()


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    requests = Requests()
    try:
        with signals_as(requests):
            signal.raise_signal(number)
            with signals_held():
                signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert not requests()


def test_sigusr1_asks_for_the_status_and_ends_nothing() -> None:
    requests = Requests()
    with signals_as(requests):
        signal.raise_signal(signal.SIGUSR1)
    assert requests.status
    assert not requests()


def test_whoever_had_the_signals_before_gets_them_back() -> None:
    before = [signal.getsignal(number) for number in ENDS]
    with signals_as(Requests()):
        assert signal.getsignal(signal.SIGTERM) not in before
        with signals_held():
            pass
    assert [signal.getsignal(number) for number in ENDS] == before


def test_a_signal_that_is_held_comes_at_the_end() -> None:
    requests, told = Requests(), list[object]()

    def be_held() -> None:
        with signals_held():
            signal.raise_signal(signal.SIGTERM)
            told.append(requests.signal)

    with signals_as(requests), pytest.raises(KeyboardInterrupt):
        be_held()
    assert told == [None]
    assert requests.signal == signal.SIGTERM


def test_a_signal_that_somebody_takes_meanwhile_can_be_held_again() -> None:
    requests = Requests()

    def be_held() -> None:
        with signals_held() as hold:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            hold()
            signal.raise_signal(signal.SIGTERM)

    with signals_as(requests), pytest.raises(KeyboardInterrupt):
        be_held()
    assert requests.signal == signal.SIGTERM


def test_the_second_signal_is_acknowledged_before_anything_is_shut_down() -> None:
    requests, said = Requests(), list[Event]()
    requests.begun = True
    run = cast("Any", SimpleNamespace(requests=requests, emit=said.append))

    def twice() -> None:
        with cut_short(run):
            signal.raise_signal(signal.SIGTERM)
            assert said == []
            signal.raise_signal(signal.SIGINT)

    with signals_as(requests), pytest.raises(KeyboardInterrupt):
        twice()
    assert said == [StopAsked(signal="SIGTERM", at_once=True)]


def test_an_interrupt_that_a_library_has_swallowed_is_heard_when_the_run_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signals, "_early", [])
    had = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        hear_early()
        with signals_as(Requests()):  # nothing was lost so far
            pass
        with suppress(BaseException):  # as libraries do while they are imported
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), signals_as(Requests()):
            pass
    finally:
        signal.signal(signal.SIGINT, had)


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    had = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup` and a shell's `&` leave it
    try:
        hear_early()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, had)
