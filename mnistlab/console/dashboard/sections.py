"""The sections of a frame that are a line or a few: each a pure function of the state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from rich.cells import cell_len
from rich.text import Text

from mnistlab.console.dashboard.eta import Estimate
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.state import ViewState
from mnistlab.store.schedulers import traits_of
from mnistlab.util.text import counted, metric_text, scheduler_text, seconds_text

PHASES = {
    "starting": "starting",
    "search": "searching",
    "confirmation": "confirming",
    "test": "testing",
    "stopping": "stopping",
    "over": "over",
}
LOW = 16  # a terminal with fewer lines gets one line where others get several
MACHINE_LINES = 6  # enough for eight GPUs on 80 columns


# --- above what runs ----------------------------------------------------------------------------------------------


def header(state: ViewState, look: Look) -> list[Text]:
    """Return which run this is: its name (which begins with the experiment's), data, method, seed, machine, folder."""
    assert state.start is not None
    start = state.start
    words = [
        start.run,
        start.dataset,
        f"{start.algorithm}, {scheduler_text(start.scheduler, start.rungs)}",
        f"seed {start.seed}",
        start.devices,
        f"config {start.config}" if start.config else "",
        amended_text(state),
        *(f"like {said}" for said in start.like),
        start.directory,
    ]
    return [look.signs.line(text, "bold") for text in look.wrapped(words, 1 if look.height < LOW else 2)]


def amended_text(state: ViewState) -> str:
    """Return for example `amended 2 times, last 2026-11-25 16:20 UTC`, or "" of a run that never was."""
    if not state.amended:
        return ""
    count, last = len(state.amended), state.amended[-1].astimezone(UTC)
    often = "once," if count == 1 else f"{count} times, last"
    return f"amended {often} {last:%Y-%m-%d %H:%M} UTC"


def plugins(state: ViewState, look: Look) -> list[Text]:
    """Return the plugins with their versions; how many do not fit is said."""
    assert state.start is not None
    names = [f"{name} {version}" for name, version in state.start.plugins.items()]
    if not names:
        return []
    shown = list(names)
    while len(shown) > 1 and cell_len(_named(shown, names)) > look.width:
        shown.pop()
    return [look.line(_named(shown, names), "dim")]


def _named(shown: Sequence[str], names: Sequence[str]) -> str:
    more = f", +{len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return f"plugins {', '.join(shown)}{more}"


def fallback(state: ViewState, look: Look) -> list[Text]:
    """Return that other data than those asked for are used."""
    assert state.start is not None
    if not state.start.fallback:
        return []
    return [look.line(f"FALLBACK DATA: {state.start.dataset} ({state.start.fallback})", "bold yellow")]


def progress(state: ViewState, now: float, look: Look, eta: Estimate | None) -> Text:
    """Return the bar of the whole run, what it is doing, the time it has taken, and the time it may still take."""
    width = min(30, look.width // 5) if look.width >= 60 else 0
    line = look.signs.line("")
    if width:
        line.append(look.signs.bar(share_done(state), width), "cyan").append("  ")
    room = look.width - line.cell_len
    # With its basis if that fits, else without; the basis is the last word.
    return line.append(look.fitted(progress_words(state, now, eta), room))


def progress_words(state: ViewState, now: float, eta: Estimate | None) -> list[str]:
    """Return what the run is doing, the time it has taken, and the time it may still take with what that rests on."""
    elapsed = seconds_text(state.t if state.end else now)
    return [f"{PHASES[state.phase]} {state.finished}/{state.total}", elapsed, *_eta(state, now, eta)]


def _eta(state: ViewState, now: float, eta: Estimate | None) -> list[str]:
    if state.phase not in {"search", "confirmation"} or not state.driven:
        return []
    if eta is None:
        return ["ETA -"]
    low, high = (seconds_text(max(0.0, end - now)) for end in (eta.median, eta.late))
    return [f"ETA {low if low == high else f'{low} to {high}'}", eta.basis]


def share_done(state: ViewState) -> float:
    """Return how much of the work is done (0 to 1), counted in trainings."""
    assert state.start is not None
    if state.phase == "over":
        return 1.0
    planned = state.confirmable * state.start.confirm_seeds
    if state.confirms:
        planned = state.trainings
    search = state.finished if state.confirms else state.total
    return (state.finished + state.replicated) / max(1, search + planned)


def counts(state: ViewState, look: Look) -> list[Text]:
    """Return how many trials are in which state: a sign and a word each, the ones that matter most first."""
    signs = look.signs
    words = [
        f"{signs.failed} {state.failed} failed" * bool(state.failed),
        f"{signs.running} {len(state.running) - state.waiting} running" * (len(state.running) > state.waiting),
        f"{signs.queued} {state.waiting} waiting for a worker" * bool(state.waiting),
        f"{signs.done} {state.complete} complete" * bool(state.complete),
        f"{signs.queued} {state.paused} waiting at a rung" * bool(state.paused),
        f"{signs.pruned} {state.pruned} pruned" * bool(state.pruned),
        f"{signs.stopped} {state.interrupted} interrupted" * bool(state.interrupted),
        f"{signs.queued} {state.queued} queued" * (bool(state.queued) and state.phase == "search"),
    ]
    return [signs.line(look.fitted(words))] if any(words) else []


def best(state: ViewState, look: Look) -> list[Text]:
    """Return the best value so far, its trial and settings, when it was found, and how the best has grown."""
    if state.best is None:
        return []
    one, signs = state.best, look.signs
    head = f"best {metric_text(state.metric, one.value)}  trial {one.trial}  "
    found = f"  found at {seconds_text(one.t)}, after {counted(one.ended, 'trial')}"
    spark = signs.spark(state.best_curve, 12) if len(state.best_curve) > 1 else ""
    tail = found + (f"  {spark}" if spark else "")
    room = {end: look.width - len(head) - len(end) for end in (tail, found, "")}
    end = next((end for end, left in room.items() if left >= 20), "")
    return [look.line(head + signs.cut(one.label, max(1, room[end])) + end, "green")]


# --- below what runs ----------------------------------------------------------------------------------------------


def health(state: ViewState, now: float, look: Look) -> list[Text]:
    """Return in words what sampler and scheduler are doing."""
    assert state.start is not None
    if state.phase not in {"search", "stopping"}:
        return []
    hours = max(1.0, now - state.began) / 3600
    several = len({bracket for bracket, _ in state.rungs}) > 1
    effect = traits_of(state.start.scheduler).effect or f"{state.start.scheduler} prunes"
    words = [
        f"search: {state.start.proposals or f'{state.start.algorithm} proposes'}, {effect}",
        f"{state.finished / hours:.0f} trials/h" if state.finished else "",
        *(
            f"{f'bracket {bracket}, ' * several}epoch {epoch}: kept {rung.kept} of {rung.reached}, "
            f"cutoff {metric_text(state.metric, rung.cutoff)}"
            for (bracket, epoch), rung in sorted(state.rungs.items())
        ),
    ]
    return [look.signs.line(text, "dim") for text in look.wrapped(words, 1 if look.height < LOW else 3)]


def machine(state: ViewState, look: Look) -> list[Text]:
    """Return what is in use of processor, memory, disk and each GPU; `-` stands for what can't be known."""
    if state.resources is None:
        return []
    seen = state.resources
    words = [
        f"machine: cpu {_percent(seen.cpu)}",
        f"memory {_gib(seen.memory_used)} of {_gib(seen.memory_total)} GiB",
        *(
            f"gpu{gpu.get('index', '')} {_percent(gpu.get('use'))}, "
            f"{_gib(gpu.get('memory_used'))}/{_gib(gpu.get('memory_total'))} GiB"
            for gpu in seen.gpus
        ),
        f"disk {_gib(seen.disk_free)} GiB free",
    ]
    return [look.signs.line(text, "dim") for text in look.wrapped(words, 1 if look.height < LOW else MACHINE_LINES)]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _gib(amount: float | None) -> str:
    return "-" if amount is None else f"{amount / 2**30:.1f}"


def failures(state: ViewState, look: Look) -> list[Text]:
    """Return how many trainings have failed for which cause, the newest failure in words, and where its log lies."""
    if not state.failures:
        return []
    assert state.start is not None
    failure, signs = state.last_failure, look.signs
    causes = ", ".join(f"{cause} {count}" for cause, count in sorted(state.failures.items()))
    if failure is None:
        return [look.line(f"{signs.failed} failed before the run went on: {causes}", "red")]
    first = f"{signs.failed} failed: {causes}; last: {failure.who}: {failure.message}"
    log = f"log {state.start.directory}/{failure.log}" if failure.log else ""
    together = f"{first}; {log}" if log else first
    if cell_len(signs.text(together)) <= look.width or look.height < LOW or not log:
        return [look.line(together, "red")]
    return [look.line(text, "red") for text in (first, f"  {log}")]


def warnings(state: ViewState, look: Look) -> list[Text]:
    """Return the last warnings, and how many there were before."""
    shown = state.warnings[-(1 if look.height < LOW else 3) :]
    hidden = state.warned - len(shown)
    lines = [look.line(f"{look.signs.warning} warning: {text}", "yellow") for text in shown]
    if hidden and look.height >= LOW:
        lines.append(look.line(f"+{hidden} more warnings in events.jsonl", "dim"))
    return lines


def stopping(state: ViewState, look: Look) -> list[Text]:
    """Return that the run was asked to stop, until it has."""
    asked = state.interruption or state.stop_asked
    if not asked or state.phase == "over":
        return []
    words = f"{what_ends(state)}, then the ranking is printed; Ctrl-C again stops at once"
    if state.at_once:
        words = "at once: what runs is cut short, what was written is kept"
    return [look.line(f"stopping ({asked}): {words}", "bold yellow")]


def what_ends(state: ViewState) -> str:
    """Return what becomes of what runs once a stop was asked for: replicates have no checkpoints."""
    if any(one.state == "running" for one in state.replicates.values()):
        return "what trains on a fresh seed is cut short, and begins anew with `resume`"
    return "what runs may end its epoch"


def hint(look: Look) -> list[Text]:
    """Return what keys do."""
    first, *rest = look.hint.split("; ")
    shown = first
    for phrase in rest:
        if cell_len(f"{shown}; {phrase}") <= look.width:
            shown = f"{shown}; {phrase}"
    return [look.line(shown, "dim")] if shown else []
