"""How the loss of Ray is noticed, without a Ray: what is asked, how long it may be silent, and who is broken off."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace

import pytest

from mnistlab.tuning.ray import heartbeat
from mnistlab.tuning.ray.heartbeat import SILENCE_SECONDS, ClusterLostError, check_pulse, felt


class Head:
    """The head of a cluster that answers as long as `answers` says so, and a clock that only moves with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers, self.now = True, 1000.0
        monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=lambda _: None))
        monkeypatch.setattr(heartbeat.ray_worker, "global_worker", SimpleNamespace(gcs_client=self))

    def internal_kv_get(self, key: bytes, namespace: None, timeout: float) -> None:
        assert timeout < SILENCE_SECONDS
        if not self.answers:
            raise TimeoutError("Deadline Exceeded")


def test_a_head_that_is_silent_for_a_while_is_given_time_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(monkeypatch)
    asking = heartbeat._Asking()
    head.now += 1000  # nobody asked: that is no silence
    assert asking.silence() == ""
    head.answers = False
    head.now += SILENCE_SECONDS
    assert asking.silence() == ""
    head.now += 0.1
    assert asking.silence() == "the head of the Ray cluster has not answered for 30 s (Deadline Exceeded)"


def test_each_answer_ends_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(monkeypatch)
    asking = heartbeat._Asking()
    for _ in range(5):
        head.answers = False
        head.now += SILENCE_SECONDS - 1
        assert asking.silence() == ""
        head.answers = True
        assert asking.silence() == ""


def test_a_call_during_which_the_driver_was_stopped_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(monkeypatch)
    asking = heartbeat._Asking()
    head.answers = False
    head.now += 10 * SILENCE_SECONDS  # Ctrl-Z, and `fg` after a while
    assert asking.silence() == ""
    head.answers = True
    assert asking.silence() == ""


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What a look at Ray's processes finds dead; the tests' own process is not to end for it."""
    found = SimpleNamespace(dead="")
    monkeypatch.setattr(heartbeat, "_dead_parts", lambda: found.dead)
    monkeypatch.setattr(heartbeat, "disarm", lambda: None)
    return found


def test_after_the_search_has_let_go_of_ray_what_ends_it_is_no_reason(
    parts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[dict[str, int]]()
    monkeypatch.setattr(heartbeat, "_processes", lambda: {"raylet": 4711})
    monkeypatch.setattr(heartbeat, "note_ray", lambda processes: told.append(dict(processes)))
    with felt(private=True, again=""):
        assert told == [{"raylet": 4711}]
    assert told == [{"raylet": 4711}, {}]


@pytest.mark.parametrize("told", [False, True])
def test_a_driver_that_waits_deaf_for_what_is_gone_is_ended_with_one_message(
    parts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: bool
) -> None:
    ended = list[str]()
    monkeypatch.setattr(heartbeat, "LEAVE_SECONDS", 0.0)
    monkeypatch.setattr(heartbeat, "note_loss", lambda _: told)  # whether the last words will say it
    monkeypatch.setattr(heartbeat, "_thread", SimpleNamespace(interrupt_main=lambda _: None))
    monkeypatch.setattr(heartbeat, "_leave", lambda: ended.append("left"))
    parts.dead = "Ray's raylet ended"
    heartbeat.Pulse(private=True, again="mnistlab resume runs/x").run()
    said = capsys.readouterr().err
    assert ended == ["left"]
    assert said.startswith("mnistlab: Ray's raylet ended") != told
    assert bool(said) != told


def test_what_ends_while_ray_is_shut_down_is_no_loss(parts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = heartbeat.Pulse(private=True, again="")

    def ended_meanwhile() -> str:
        looks.stop()
        return "Ray's raylet ended"

    monkeypatch.setattr(looks, "_look", ended_meanwhile)
    looks.run()
    assert looks.lost == ""


def test_the_signal_of_a_loss_means_nothing_without_one(parts: SimpleNamespace) -> None:
    before = signal.getsignal(signal.SIGUSR2)
    with felt(private=True, again="mnistlab resume runs/tiny-1"):
        os.kill(os.getpid(), signal.SIGUSR2)  # as batch systems do some time before they end a job
        time.sleep(0.05)
    assert signal.getsignal(signal.SIGUSR2) is before


def test_a_loss_breaks_off_the_main_thread(parts: SimpleNamespace) -> None:
    with pytest.raises(ClusterLostError, match="Ray's raylet ended: what was found so far is kept"):
        loses(parts, "Ray's raylet ended", waits)


def waits() -> None:
    """Wait in short steps, as Ray does for its answers."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        time.sleep(0.05)


def test_what_ray_raises_before_the_loss_is_seen_is_that_loss(parts: SimpleNamespace) -> None:
    with pytest.raises(ClusterLostError) as raised:
        loses(parts, "Ray's gcs_server ended", breaks)
    assert isinstance(raised.value.__cause__, ConnectionError)


def breaks() -> None:
    raise ConnectionError("broken pipe")


def loses(parts: SimpleNamespace, what: str, then: Callable[[], None]) -> None:
    with felt(private=True, again="mnistlab resume runs/tiny-1"):
        parts.dead = what
        then()


def test_an_error_with_ray_alive_stays_what_it_is(parts: SimpleNamespace) -> None:
    with pytest.raises(ConnectionError), felt(private=True, again="mnistlab resume runs/tiny-1"):
        raise ConnectionError("not Ray's")


def drive(parts: SimpleNamespace, errors: list[BaseException]) -> None:
    """Drive as a search does: in a loop that takes exceptions for those of single trials."""
    try:
        with felt(private=True, again="mnistlab resume runs/tiny-1"):
            parts.dead = "Ray's raylet ended"
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with suppress(Exception):
                    check_pulse()
                time.sleep(0.01)
    except BaseException as error:
        errors.append(error)


@pytest.mark.parametrize("aside", [False, True])
def test_the_loop_is_broken_off_with_an_error_that_names_what_goes_on(parts: SimpleNamespace, aside: bool) -> None:
    errors: list[BaseException] = []
    began = time.monotonic()
    if aside:
        thread = threading.Thread(target=drive, args=(parts, errors))
        thread.start()
        thread.join()
    else:
        drive(parts, errors)
    assert time.monotonic() - began < 20
    (error,) = errors
    assert isinstance(error, ClusterLostError)
    kept = "what was found so far is kept; go on with `mnistlab resume runs/tiny-1`"
    assert str(error) == f"Ray's raylet ended: {kept}"


def test_where_all_is_well_nothing_is_broken_off(parts: SimpleNamespace) -> None:
    with felt(private=True, again=""):
        time.sleep(0.1)
        check_pulse()
    parts.dead = "Ray's raylet ended"
    check_pulse()  # it is no Ray of ours any more
