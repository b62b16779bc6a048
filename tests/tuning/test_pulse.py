"""Who drives a search whose Ray is gone is broken off, in whatever thread."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest

from mnistlab.tuning import pulse
from mnistlab.tuning.pulse import ClusterLostError, check_pulse, felt


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of Ray is found gone; a test adds to it."""
    found: list[str] = []
    monkeypatch.setattr(pulse, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(pulse, "_dead_parts", lambda: " and ".join(found))
    monkeypatch.setattr(pulse, "_disarm", lambda: None)  # it is meant for the end of the process
    return found


def drive(gone: list[str], errors: list[BaseException]) -> None:
    """Drive as a search does: in a loop that takes exceptions for those of single trials."""
    try:
        with felt(private=True, again="mnistlab resume runs/tiny-1"):
            gone.append("Ray's raylet ended")
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with suppress(Exception):
                    check_pulse()
                time.sleep(0.01)
    except BaseException as error:
        errors.append(error)


@pytest.mark.parametrize("aside", [False, True])
def test_the_loop_is_broken_off_with_an_error_that_names_what_goes_on(gone: list[str], aside: bool) -> None:
    errors: list[BaseException] = []
    began = time.monotonic()
    if aside:
        thread = threading.Thread(target=drive, args=(gone, errors))
        thread.start()
        thread.join()
    else:
        drive(gone, errors)
    assert time.monotonic() - began < 20
    (error,) = errors
    assert isinstance(error, ClusterLostError)
    kept = "what was found so far is kept; go on with `mnistlab resume runs/tiny-1`"
    assert str(error) == f"Ray's raylet ended: {kept}"


def test_where_all_is_well_nothing_is_broken_off(gone: list[str]) -> None:
    with felt(private=True, again=""):
        time.sleep(0.1)
        check_pulse()
    gone.append("Ray's raylet ended")
    check_pulse()  # it is no Ray of ours any more
