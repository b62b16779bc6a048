"""Whether the Ray under a search is still there. Once it is not, Ray ends this process within seconds, without a word.

So its processes are looked at twice a second, and a cluster that was joined is asked; who finds it gone says so first.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from ray._private import worker as ray_worker

from mnistlab.errors import ExitCode, MnistlabError
from mnistlab.util.last_words import kept, note_loss, note_ray
from mnistlab.util.signals import LOST

LOOK_SECONDS = 0.5
SILENCE_SECONDS = 30.0  # that a cluster which was joined may need for an answer; Ray gives up after 60
LEAVE_SECONDS = 20.0  # then the process ends, whatever it waits for
PARTS = ("raylet", "gcs_server")


class ClusterLostError(MnistlabError):
    """Ray, or the connection to it, is gone while the search needs it. What was written is kept."""

    exit_code = ExitCode.RESOURCES_VANISHED

    def __init__(self, what: str, again: str) -> None:
        """Say `what` is gone; `again` is the command that goes on with the run."""
        super().__init__(kept(what, again))
        self._what = what

    @property
    def reason(self) -> str:
        """What is gone."""
        return self._what


_pulses: list[Pulse] = []  # of the Ray that this process is in, if it is in one


def check_pulse() -> None:
    """Break off whatever the calling thread does, once Ray is gone.

    To be called again and again by whoever drives: only the main thread is told by a signal.
    """
    if any(pulse.lost for pulse in _pulses):
        raise _Gone


class Pulse:
    """Looks at Ray from a thread of its own; `lost` says in words what is gone, or "" while all is well."""

    def __init__(self, *, private: bool, again: str) -> None:
        """Look at the processes of a private Ray, or else ask the head of the cluster that was joined."""
        self.lost, self._again = "", again
        self.breaks_off = True  # whether a loss interrupts the main thread, which has not heard of it otherwise
        self._look = _dead_parts if private else _Asking().silence
        self._over = threading.Event()

    def run(self) -> None:
        """Look until it is over; interrupt the main thread where something is gone."""
        while not self._over.wait(LOOK_SECONDS):
            found = self._look()
            if self._over.is_set():  # Ray was shut down while it was looked at
                return
            if found:
                self.lost = found
                told = note_loss(found)
                disarm()
                _thread.interrupt_main(LOST)
                if not self._over.wait(LEAVE_SECONDS):  # it waits for what is gone, deaf
                    if not told:
                        sys.stderr.write(f"mnistlab: {self.error()}\n")
                    _leave()
                return

    def error(self) -> ClusterLostError:
        """Return the error that says what is gone."""
        return ClusterLostError(self.lost, self._again)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()


class _Gone(BaseException):
    """Breaks off whatever a thread does: no Exception, for which Tune would clean up, and wait for what is gone."""


@contextmanager
def felt(*, private: bool, again: str) -> Generator[Pulse]:
    """Raise a ClusterLostError in this context, whatever it does, once the Ray that is up is gone.

    `again` is the command that goes on with the run then.
    """
    pulse = Pulse(private=private, again=again)
    note_ray(_processes())
    _pulses.append(pulse)
    with _interrupted(pulse):
        threading.Thread(target=pulse.run, name="mnistlab-pulse", daemon=True).start()
        try:
            yield pulse
        except (Exception, _Gone) as error:
            pulse.breaks_off = False
            if not pulse.lost and not isinstance(error, MnistlabError):  # what Ray raises may come first
                time.sleep(2 * LOOK_SECONDS)
            if pulse.lost:
                raise pulse.error() from error
            raise
        finally:
            pulse.stop()
            _pulses.remove(pulse)
            note_ray({})  # what ends it from here on is the search itself


@contextmanager
def _interrupted(pulse: Pulse) -> Generator[None]:
    """Have the signal `LOST` break off the main thread. Another one finds out by `check_pulse`, or by Ray's errors.

    Batch systems send the same signal as a warning: without a loss it means nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def break_off(_number: int, _frame: object) -> None:
        if pulse.lost and pulse.breaks_off:
            raise _Gone

    before = signal.signal(LOST, break_off)
    try:
        yield
    finally:
        signal.signal(LOST, before)


def _processes() -> dict[str, int]:
    """Return the processes of a private Ray on which all depends; of one that was joined, none is ours."""
    node: Any = vars(ray_worker)["_global_node"]
    started = node.all_processes if node else {}
    return {part: started[part][0].process.pid for part in PARTS if started.get(part)}


def _dead_parts() -> str:
    node: Any = vars(ray_worker)["_global_node"]
    dead = {str(kind) for kind, _ in node.dead_processes()} if node else set[str]()
    gone = [part for part in PARTS if part in dead]
    return f"Ray's {' and '.join(gone)} ended" if gone else ""


class _Asking:
    """Asks the head of a cluster for a sign of life."""

    def __init__(self) -> None:
        self._heard, self._unheard = time.monotonic(), 0

    def silence(self) -> str:
        """Return in words that the head has not answered for too long, or ""."""
        worker: Any = ray_worker.global_worker
        try:
            worker.gcs_client.internal_kv_get(b"mnistlab", None, timeout=5)
            self._heard, self._unheard = time.monotonic(), 0
        except Exception as error:
            self._unheard += 1
            # More than once: a call during which this process was stopped (Ctrl-Z) has failed for that.
            if self._unheard > 1 and time.monotonic() - self._heard > SILENCE_SECONDS:
                return f"the head of the Ray cluster has not answered for {SILENCE_SECONDS:.0f} s ({error})"
        time.sleep(LOOK_SECONDS * 4)
        return ""


def disarm() -> None:
    """Let this process end without Ray's part of it, which would wait for a minute for what is gone."""
    atexit.register(_leave)


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(ExitCode.RESOURCES_VANISHED))
