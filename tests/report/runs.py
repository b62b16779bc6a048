"""Runs that were never made, for reports: as records, with events, and with strings that would like to be obeyed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np

from mnistlab import events as ev
from mnistlab.report import run_page
from mnistlab.report.evaluation import Evaluated, Votes
from mnistlab.store.results import ReplicateResult, RunRecord, TestScore, TrialResult

START = datetime(2026, 11, 22, 19, 0, tzinfo=UTC)
IMAGES = 500


def plan(name: str, width: int, lr: float, optimizer: str = "adamw") -> dict[str, Any]:
    part = {"plugin": f"mnistlab:{name}", "distribution": "mnistlab", "version": "0.1.0"}
    return {
        "model": {"name": name, **part, "config": {"width": width, "activation": ("relu", "gelu")[width % 2]}},
        "optimizer": {"name": optimizer, "plugin": f"mnistlab:{optimizer}", "version": "0.1.0", "config": {"lr": lr}},
        "transforms": [],
        "training": {"epochs": 4, "batch_size": 64 * (1 + width % 3)},
    }


def epoch(accuracy: float) -> dict[str, float]:
    return {
        "train_loss": 1.1 - accuracy,
        "val_loss": 1.2 - accuracy,
        "val_accuracy": accuracy,
        "images_per_second": 9_000.0,
        "seconds": 1.5,
    }


def trial(number: int, accuracy: float, state: Any = "complete", **changes: Any) -> TrialResult:
    epochs = {"complete": 4, "pruned": 1 + number % 2, "interrupted": 2, "failed": 1}[state]
    history = tuple(epoch(accuracy - 0.02 * (4 - e)) for e in range(1, epochs + 1))
    fields: dict[str, Any] = {
        "plan": plan("cnn" if number % 3 else "mlp", 16 + number, 0.0003 * (1 + number) ** 2),
        "label": f"plan {number}",
        "history": history,
        "metrics": {**history[-1], "parameters": 10_000 + 777 * number},
        "seconds": 3.0 + number,
    }
    if state == "failed":
        fields |= {"cause": "nan", "message": "the training loss became nan in epoch 2"}
    return TrialResult(trial=f"{number:04}", number=number, state=state, seed=100 + number, **(fields | changes))


def replicate(number: int, seed: int, correct: int) -> ReplicateResult:
    return ReplicateResult(
        trial=f"{number:04}",
        replicate=seed,
        seed=9_000 + seed,
        metrics={**epoch(correct / IMAGES), "parameters": 10_000 + 777 * number},
        history=(epoch(correct / IMAGES),) * 4,
        seconds=6.0,
        weights_sha256=f"{number:064x}",
        val_correct="1" * correct + "0" * (IMAGES - correct),
        test=TestScore(correct=960 + seed, images=1_000, loss=0.1),
    )


STATES = (
    "complete",
    "complete",
    "pruned",
    "complete",
    "pruned",
    "failed",
    "complete",
    "interrupted",
    "complete",
    "pruned",
)


def record(count: int = 24, **changes: Any) -> RunRecord:
    """A run of `count` trials in every state, two of them confirmed on three seeds."""
    trials = [trial(i, 0.90 + 0.003 * (i * 7 % 29), STATES[i % len(STATES)]) for i in range(count)]
    best = [i for i in range(count) if STATES[i % len(STATES)] == "complete"][:2]
    replicates = [replicate(i, seed, 480 + place - seed) for place, i in enumerate(best) for seed in (1, 2, 3)]
    about: dict[str, Any] = {
        "run": "made-up",
        "experiment": {"search": {"algorithm": "tpe", "scheduler": "asha"}, "confirm": {"seeds": 3}, "data": {}},
        "seed": 0,
        "metric": "val_accuracy",
        "metrics": ["val_accuracy"],
        "rule": "val_accuracy at the last epoch, higher is better",
        "created": "2026-11-22T19:00:00+00:00",
        "command": "mnistlab search made-up.toml",
        "dataset": {
            "name": "digits",
            "requested": "digits",
            "fallback": "",
            "plugin": "mnistlab:digits",
            "source": "scikit-learn",
            "sha256": {},
            "train": 800,
            "validation": IMAGES,
            "test": 1_000,
            "split": "stratified",
            "split_sha256": "ab" * 32,
            "validation_indices": list(range(IMAGES)),
        },
        "plugins": {"mnistlab": "0.1.0"},
        "machine": {"device": "2 CPUs"},
        "versions": {"mnistlab": "0.1.0"},
    }  # fmt: skip
    fields: dict[str, Any] = {
        "trials": tuple(trials),
        "replicates": tuple(replicates),
        "run": about,
        "test_openings": 1,
    }
    return RunRecord(path="runs/made-up", **(fields | changes))


def stream(of: RunRecord) -> tuple[ev.Stamped, ...]:
    """The ends of the trials, last number first, and what the scheduler decided."""
    happened: list[ev.Event] = []
    for one in reversed(of.trials):
        values: dict[str, Any] = {"trial": one.trial, "epoch": len(one.history), "metrics": one.metrics}
        if one.state == "failed":
            happened.append(
                ev.TrialFailed(trial=one.trial, epoch=1, cause=one.cause, message=one.message, log="log.txt")
            )
        elif one.state == "pruned":
            happened.append(ev.TrialPruned(**values, seconds=one.seconds))
        else:
            happened.append(ev.TrialFinished(**values, seconds=one.seconds))
    happened += [
        ev.RungDecided(bracket=0, epoch=1, reached=9, kept=3, cutoff=0.9),
        ev.RungDecided(bracket=0, epoch=1, reached=24, kept=8, cutoff=0.93),
        ev.RungDecided(bracket=0, epoch=3, reached=8, kept=4, cutoff=0.95),
    ]
    return tuple(
        ev.Stamped(seq=i, time=START + timedelta(seconds=10 * i), t=10.0 * i, event=e)
        for i, e in enumerate(happened, 1)
    )


EVIL = "".join(
    [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(2)>",
        '" onmouseover="alert(3)" x=\'',
        "[/red][link=http://evil.example]x[/link]",
        "[a](javascript:alert(4)) ![b](http://evil.example/b.png) www.evil.example `x` |pipe|",
        "\x1b[31m\x1b]0;title\x07",
        "=HYPERLINK(1)",
        r"\input{/etc/passwd}$x^2$",
        "\u202eevil\u2066\u200b",
        "{{ 7 * 7 }}{% raw %}",
        "-->]]>&lt;\n# heading\n",
    ]
)


def evil(count: int = 12, text: str = EVIL) -> RunRecord:
    """A run in which everything that a plugin, a file or a path may say is `text`."""
    whole = record(count)
    name = text + "x" * 10_000
    part = {"name": name, "plugin": f"{text}:{text}", "version": text, "distribution": text}
    trials = [
        TrialResult(
            trial=one.trial if number else "0000",
            number=one.number,
            state=one.state,
            seed=one.seed,
            plan={
                "model": {**part, "config": {text: f"{text}{number}", "width": number}},
                "optimizer": {**part, "config": {f"{text}2": number * 0.1}},
                "transforms": [{**part, "config": {}}],
                "training": {"epochs": 4, "batch_size": 64},
            },
            label=name,
            history=one.history,
            metrics=one.metrics,
            seconds=one.seconds,
            cause=text if one.state == "failed" else "",
            message=name if one.state == "failed" else "",
        )
        for number, one in enumerate(whole.trials)
    ]
    data = {**whole.run["dataset"], "name": text, "requested": text, "fallback": text, "split": text, "source": text}
    about = {
        **whole.run,
        "run": text,
        "rule": text,
        "command": text,
        "created": text,
        "dataset": data,
        "plugins": {text: text},
        "machine": {"device": text, "processor": text, "system": text},
        "versions": {text: text},
    }
    return RunRecord(
        path=text, run=about, trials=tuple(trials), replicates=whole.replicates, test_openings=whole.test_openings
    )


def evaluated(classes: tuple[str, ...] = tuple("0123456789"), images: int = 400, models: int = 3) -> Evaluated:
    """Predictions that are right nine times in ten, drawn by a generator."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, len(classes), images)
    scores = draw.normal(size=(models, images, len(classes))) + 2.0 * np.eye(len(classes))[labels]
    chances = np.exp(scores) / np.exp(scores).sum(2, keepdims=True)
    wrong = (chances.argmax(2) != labels).sum(0)
    return Evaluated(
        trial="0001",
        classes=classes,
        indices=np.arange(images) * 3,
        images=draw.integers(0, 256, (images, 1, 8, 8), dtype=np.uint8),
        labels=labels,
        probabilities=chances.astype(np.float32),
        agreement=1.0,
        votes=Votes(wrong=wrong, models=models),
    )


@cache
def whole_page() -> run_page.RunPage:
    """The page of a whole run whose models were asked: its charts take a second and more, so it is made once."""
    of = record()
    return run_page.page("r0", of, stream(of), lambda *_: evaluated())


@cache
def evil_page() -> run_page.RunPage:
    """The page of a run whose every word is an attack, also once."""
    of = evil(24)
    classes = tuple(f"{EVIL}{number}" for number in range(10))
    return run_page.page("r0", of, stream(of), lambda *_: evaluated(classes))
