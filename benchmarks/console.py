"""What the live console costs: its share of a core, what it adds to an event, its memory, and how fast it reads.

A dashboard of 20 running trials is drawn on a pseudo-terminal that is read to its end, while events come as a real
search sends them; then 10,000 events a second come. The drawing thread's own processor clock is what is looked at, so
other work on the machine matters little.

Usage: python benchmarks/console.py [SECONDS] [ROUNDS]
"""

from __future__ import annotations

import fcntl
import os
import pty
import statistics
import struct
import sys
import tempfile
import termios
import threading
import time
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path

from machine import spread, table

from mnistlab import events as ev
from mnistlab.console.dashboard.screen import Painter, Screen
from mnistlab.console.state import ViewState, advance
from mnistlab.store import RunWriter, read_events

RUNNING, EPOCHS, EPOCH_SECONDS = 20, 8, 2.0
STORM = 10_000  # events a second
TRIALS = 10_000
PLAN = {
    "model": {"name": "cnn", "config": {"depth": 3, "channels": 32, "growth": 1.5, "dropout": 0.2, "kernel": 3}},
    "optimizer": {"name": "adamw", "config": {"lr": 0.003, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.01}},
    "training": {"epochs": EPOCHS, "batch_size": 128},
}


class Terminal:
    """A pseudo-terminal of 120 x 40 that a thread reads to its end, counting frames."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.frames = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._master, 1 << 16):
                self.frames += data.count(b"\x1b[?2026h")

    def close(self) -> None:
        self.stream.close()
        self._reader.join(5)
        os.close(self._master)


class Search:
    """Events as a search with RUNNING trials sends them, without the search."""

    def __init__(self) -> None:
        self._seq, self._begun, self._trials = 0, time.monotonic(), 0
        self._epochs = dict[str, int]()

    def stamp(self, event: ev.Event) -> ev.Stamped:
        self._seq += 1
        return ev.Stamped(seq=self._seq, time=datetime.now(UTC), t=time.monotonic() - self._begun, event=event)

    def start(self) -> list[ev.Stamped]:
        started = ev.RunStarted(
            run="cnn-1",
            experiment="cnn",
            directory="runs/cnn-1",
            seed=0,
            dataset="mnist",
            trials=TRIALS,
            epochs=EPOCHS,
            parallel=RUNNING,
            devices="20 CPUs",
            metric="val_accuracy",
            rule="",
            algorithm="tpe",
            scheduler="asha",
            plugins={"mnistlab": "0.1.0", "mnistlab-hello": "0.1.0"},
            confirm_top=3,
            confirm_seeds=5,
        )
        return [self.stamp(started), *(one for _ in range(RUNNING) for one in self._trial())]

    def _trial(self) -> list[ev.Stamped]:
        name, number = f"{self._trials:04}", self._trials
        self._trials, self._epochs[name] = self._trials + 1, 0
        label = "cnn depth=3 channels=32 … · adamw lr=0.003 …"
        return [self.stamp(ev.TrialStarted(trial=name, number=number, seed=number, label=label, plan=PLAN))]

    def epoch(self, place: int) -> list[ev.Stamped]:
        """Return the end of an epoch of the running trial at `place`, with what follows from its last one."""
        name = list(self._epochs)[place % RUNNING]
        self._epochs[name] += 1
        epoch, value = self._epochs[name], 0.9 + (self._seq % 997) / 10_000
        metrics = {"train_loss": 0.1, "val_loss": 0.2, "val_accuracy": value, "images_per_second": 1e4, "seconds": 2.0}
        said = [self.stamp(ev.TrialEpoch(trial=name, epoch=epoch, epochs=EPOCHS, metrics=metrics))]
        if epoch < EPOCHS:
            return said
        del self._epochs[name]
        return [
            *said,
            self.stamp(ev.TrialFinished(trial=name, epoch=epoch, metrics=metrics, seconds=16.0)),
            *self._trial(),
        ]


@dataclass(frozen=True)
class Drawn:
    """What a while of drawing came to: share of a core, frames a second, microseconds an event, events a second."""

    share: float
    frames: float
    event: float
    slowest: float
    events: float


def draw(seconds: float, rate: float) -> Drawn:
    """Feed `rate` events a second for `seconds` into a screen on a terminal."""
    terminal, search = Terminal(), Search()
    screen = Screen(Painter(terminal.stream), terminal.stream, time.monotonic, "Ctrl-C: stop")
    screen.begin()
    clock = time.pthread_getcpuclockid(screen._thread.ident or 0)
    for one in search.start():
        screen.handle(one)
    begin, before, fed, took = time.monotonic(), time.clock_gettime(clock), 0, list[float]()
    while (now := time.monotonic()) - begin < seconds:
        while fed < (now - begin) * rate:
            for one in search.epoch(fed):
                start = time.perf_counter()
                screen.handle(one)
                took.append(time.perf_counter() - start)
            fed += 1
        time.sleep(0.01)
    elapsed, used = time.monotonic() - begin, time.clock_gettime(clock) - before
    frames = terminal.frames / elapsed
    screen.end()
    terminal.close()
    return Drawn(used / elapsed, frames, 1e6 * statistics.median(took), 1e3 * max(took), len(took) / elapsed)


def grown(trials: int) -> float:
    """Return the memory in KiB that a state keeps after so many trials."""
    search = Search()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    state = reduce(advance, search.start(), ViewState())
    for number in range(trials * EPOCHS):
        state = reduce(advance, search.epoch(number), state)
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert state.complete >= trials - RUNNING
    return kept / 1024


def attached(trials: int) -> tuple[float, int]:
    """Return the seconds that it takes to read the stream of a run of so many trials, and how many events it has."""
    with tempfile.TemporaryDirectory() as folder:
        writer, search = RunWriter(Path(folder)), Search()
        for one in search.start():
            writer.append(one.event)
        for number in range(trials * EPOCHS):
            for one in search.epoch(number):
                writer.append(one.event)
        writer.close()
        start, count, state = time.perf_counter(), 0, ViewState()
        for stamped in read_events(Path(folder)):
            state, count = advance(state, stamped), count + 1
        return time.perf_counter() - start, count


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    usual = [draw(seconds, RUNNING / EPOCH_SECONDS) for _ in range(rounds)]
    storm = [draw(seconds / 4, STORM) for _ in range(rounds)]
    small, large = grown(100), grown(TRIALS)
    read, count = attached(TRIALS)
    rows = [
        ("20 running trials: share of a core, %", "< 1", spread([100 * one.share for one in usual], 2)),
        ("20 running trials: frames a second", "<= 2", spread([one.frames for one in usual], 2)),
        ("20 running trials: an event waits, µs", "", spread([one.event for one in usual], 1)),
        ("storm: events a second", STORM, spread([one.events for one in storm], 0)),
        ("storm: frames a second", "<= 4", spread([one.frames for one in storm], 2)),
        ("storm: share of a core, %", "", spread([100 * one.share for one in storm], 1)),
        ("storm: an event waits, µs", "", spread([one.event for one in storm], 1)),
        ("storm: the longest wait, ms", "< 50", spread([one.slowest for one in storm], 1)),
        ("memory after 100 trials, KiB", "", f"{small:.0f}"),
        ("memory after 10,000 trials, KiB", "as after 100", f"{large:.0f}"),
        (f"attaching to {count:,} events, s", "", f"{read:.1f}"),
    ]
    print(table(f"Console ({seconds:.0f} s a round)", ("figure", "wanted", "median (range, n)"), rows))


if __name__ == "__main__":
    main()
