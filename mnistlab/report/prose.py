"""The words of a report: what a run was, each trial's full record, what failed, what the numbers do not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnistlab.experiment.earlier import from_json, text
from mnistlab.leaderboard import Leaderboard
from mnistlab.leaderboard.prose.ensemble import ensemble_notes
from mnistlab.leaderboard.prose.notes import luck_notes
from mnistlab.leaderboard.prose.ties import rank_notes
from mnistlab.leaderboard.rows import splits_of
from mnistlab.report.rerun import trial_command
from mnistlab.store.layout import LOG, in_trial
from mnistlab.store.results import ReplicateResult, RunRecord, TrialResult
from mnistlab.util.text import counted, listed, metric_text, runs_before_text, scalar_text, seconds_text, settings

Pairs = tuple[tuple[str, str], ...]
Texts = tuple[tuple[str, ...], ...]

EPOCH_METRICS = ("train_loss", "val_loss", "val_accuracy", "seconds")
CLIP = 2000  # characters shown of a text that a plugin or a file has made up; the data in the page holds all of it


@dataclass(frozen=True, kw_only=True)
class TrialPage:
    """All that is known of one trial, as texts."""

    id: str
    trial: str
    state: str
    plan: str
    about: Pairs
    settings: Pairs
    epochs: Texts
    replicates: Texts
    cause: str
    message: str
    log: str
    command: str


def clipped(text: str) -> str:
    """Return a text, or its beginning with its length."""
    return text if len(text) <= CLIP else f"{text[:CLIP]}… ({len(text):,} characters)"


def overview(record: RunRecord, board: Leaderboard) -> Pairs:
    """Return what the run was: data, search, machine, versions."""
    run = record.run
    data, machine, versions = (run.get(key, {}) for key in ("dataset", "machine", "versions"))
    search = run.get("experiment", {}).get("search", {})
    states = [f"{count} {state}" for state, count in _counts(record).items()]
    pairs = (
        ("Run", board.run),
        ("Begun", _time_text(str(run.get("created", "")))),
        ("Amended", _amended_text(record)),
        ("Data", _data_text(data, board)),
        ("Search", _words([search.get("algorithm"), search.get("scheduler"), f"seed {run.get('seed', '?')}"])),
        ("Proposals", str(run.get("proposals", ""))),
        ("Started from", "; ".join(map(text, from_json(run.get("like", ()))))),
        ("Trials", f"{len(record.trials)} ({', '.join(states)})" if states else "none has ended"),
        ("Machine", _words([machine.get("device"), machine.get("processor"), machine.get("system")])),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Plugins", ", ".join(f"{name} {version}" for name, version in run.get("plugins", {}).items())),
        ("Code", _hash_text(str(run.get("code_sha256", "")))),
    )
    return tuple((name, clipped(text)) for name, text in pairs if text)


def _time_text(time: str) -> str:
    return time.replace("T", " ").replace("+00:00", " UTC")


def _amended_text(record: RunRecord) -> str:
    """Return how often the search went on in a larger space, when last, and what that added; "" where it never did."""
    if record.number == 1:
        return ""
    times = record.number - 1
    often = "once" if times == 1 else f"{times} times, last"
    added = listed(list(record.run.get("amended", {})))
    return f"{often} {_time_text(str(record.run.get('amended_at', '')))}" + (f": more of {added}" if added else "")


def _counts(record: RunRecord) -> dict[str, int]:
    order = ("complete", "pruned", "interrupted", "failed")
    counts = {state: sum(trial.state == state for trial in record.trials) for state in order}
    return {state: count for state, count in counts.items() if count}


def _words(parts: Sequence[object]) -> str:
    return ", ".join(str(part) for part in parts if part)


def _hash_text(digest: str) -> str:
    return f"sha256 {digest[:16]}…" if digest else ""


def _data_text(data: object, board: Leaderboard) -> str:
    about = data if isinstance(data, dict) else {}
    names = (("train", "to train on"), ("validation", "to validate"), ("test", "sealed for the test"))
    counts = [f"{about[key]:,} {what}" for key, what in names if isinstance(about.get(key), int)]
    return _words([board.dataset, *counts, _hash_text(str(about.get("split_sha256", ""))).replace("sha256", "split")])


# --- trials -------------------------------------------------------------------------------------------------------


def trial_pages(key: str, record: RunRecord, board: Leaderboard) -> list[TrialPage]:
    """Return the record of every trial, in the order of their numbers."""
    states = {row.trial: row.state for row in board.rows}
    return [_trial_page(key, record, board, trial, states[trial.trial]) for trial in record.plans]


def trial_id(key: str, number: int) -> str:
    """Return the anchor of a trial's record: made of numbers, never of names."""
    return f"{key}-trial-{number}"


def _trial_page(key: str, record: RunRecord, board: Leaderboard, trial: TrialResult, state: str) -> TrialPage:
    flat = settings(trial.plan)
    mine = [one for one in record.replicates if one.trial == trial.trial]
    return TrialPage(
        id=trial_id(key, trial.number),
        trial=trial.trial,
        state=state,
        plan=clipped(trial.label or f"{flat.get('model', '')} · {flat.get('optimizer', '')}"),
        about=_about(trial),
        settings=tuple((clipped(name), clipped(_exact(value))) for name, value in flat.items() if value != ""),
        epochs=tuple(_epoch_texts(number, epoch) for number, epoch in enumerate(trial.history, 1)),
        replicates=tuple(_replicate_texts(board.metric, one) for one in mine),
        cause=trial.cause,
        message=clipped(trial.message),
        log=in_trial(trial.trial, LOG),
        command=trial_command(board.run, trial, record.run),
    )


def _exact(value: object) -> str:
    return (
        repr(value)
        if isinstance(value, float)
        else scalar_text(value)
        if isinstance(value, (bool, int))
        else str(value)
    )


def _about(trial: TrialResult) -> Pairs:
    plan = trial.plan
    parts = [plan.get("model", {}), plan.get("optimizer", {}), *plan.get("transforms", ())]
    made = dict.fromkeys(f"{part['plugin']} {part.get('version', '')}".strip() for part in parts if part.get("plugin"))
    parameters, macs = trial.metrics.get("parameters"), trial.metrics.get("macs")
    pairs = (
        ("seed", str(trial.seed) if trial.number >= 0 else ""),  # else no trial had this plan, only fresh seeds
        ("time", seconds_text(trial.seconds) if trial.number >= 0 else ""),
        ("parameters", "" if parameters is None else f"{parameters:,.0f}"),
        ("multiply-accumulates", "" if macs is None else f"{macs:,.0f}"),
        ("plugins", ", ".join(made)),
    )
    return tuple((name, clipped(text)) for name, text in pairs if text)


def _epoch_texts(number: int, epoch: object) -> tuple[str, ...]:
    values = epoch if isinstance(epoch, dict) else {}
    return (str(number), *(metric_text(name, values.get(name)) for name in EPOCH_METRICS))


def _replicate_texts(metric: str, one: ReplicateResult) -> tuple[str, ...]:
    test = metric_text("test_accuracy", one.test.accuracy) if one.test else "-"
    outcome = clipped(f"{one.cause}: {one.message}") if one.cause else "trained"
    value = metric_text(metric, one.metrics.get(metric))
    return (str(one.replicate), str(one.seed), outcome, value, test, seconds_text(one.seconds), one.weights_sha256[:16])


# --- methods and limits -------------------------------------------------------------------------------------------


def methods(record: RunRecord, board: Leaderboard) -> list[str]:
    """Return how the numbers came about and what they do not say, a paragraph each."""
    return [text for text in (*_how(record, board), *luck_notes(board), *_limits(board)) if text]


def _how(record: RunRecord, board: Leaderboard) -> list[str]:
    data = record.run.get("dataset", {})
    return [
        f"Rule: {board.rule}." if board.rule else "",
        f"{board.dataset} was used because {data.get('fallback')}." if board.fallback else "",
        f"The validation images are part of the training images ({data.get('split', 'stratified')} split); all that "
        "was chosen was chosen on them.",
        _splits_text(record),
        _seeds_text(board),
        *rank_notes(board),
        *ensemble_notes(board),
        "Intervals of the test accuracy are Wilson's at 95 %, over images: they do not cover the spread between seeds.",
    ]


def _splits_text(record: RunRecord) -> str:
    if splits_of(record) == "same":
        return ""
    return (
        "Each seed of the confirmation drew its own split, the same for all plans, so that no figure of confirmed "
        "plans hangs on a single one. One of the champion's models was asked about its own validation images."
    )


def _seeds_text(board: Leaderboard) -> str:
    confirmed = sum(row.state == "confirmed" for row in board.rows)
    if not confirmed:
        return "No plan was confirmed on fresh seeds: every value is one training."
    counts = sorted({row.seeds + row.lost for row in board.rows if row.state == "confirmed"})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return (
        f"{counted(confirmed, 'plan')} trained again on {seeds} fresh seeds; validation and test figures of these are "
        "means over the seeds, with the standard deviation over seeds and, in brackets, their number."
    )


def _limits(board: Leaderboard) -> list[str]:
    opened = board.test_openings
    often = "was not opened" if not opened else "was opened once" if opened == 1 else f"was opened {opened} times"
    spoiled = " What is chosen by a test set that was opened before is no longer free of choice." * (opened > 1)
    return [
        f"The test set {often} in this run, and not at all for this report.{spoiled}",
        _before_text(board),
        _chosen_text(board),
        "Confusion, recall, calibration and the images shown are of the validation part, on which plans were chosen.",
        "Times were taken on the machine named above, on which other trials ran at the same time.",
        "Importance and slices describe the trials that were made, which the search did not spread evenly.",
    ]


def _before_text(board: Leaderboard) -> str:
    """Return how worn the test set was, as far as the ledger of the run's machine knew."""
    if board.runs_before is None:
        return ""
    said = runs_before_text(board.runs_before)
    worn = " What they have taught whoever designed this one is part of its score." * bool(board.runs_before)
    return f"By its own ledger {said}.{worn}"


def _chosen_text(board: Leaderboard) -> str:
    """Return what it does to a score to be the best of those that could have been chosen."""
    if board.luck is None or board.luck.tried < 2:
        return ""
    return (
        f"The best of the {board.luck.tried} trials that used their full budget looks better on validation than it is, "
        "because it was chosen for that (winner's curse); fresh seeds take away the part of it that is due to the "
        "seed, not the part that is due to the images."
    )


def failures_text(board: Leaderboard) -> str:
    """Return how many trials failed and of what, or "" where none did."""
    if not board.failures:
        return ""
    causes = [f"{count} of cause '{cause}'" for cause, count in sorted(board.failures.items())]
    return f"{counted(sum(board.failures.values()), 'trial')} failed: {listed(causes)}."
