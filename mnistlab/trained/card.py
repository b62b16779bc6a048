"""The model card beside an exported model: what it is, how it was chosen, how good it is, and how to load it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mnistlab.leaderboard import Row
from mnistlab.leaderboard.statistics import Interval, MeanSd, wilson
from mnistlab.trained.formats import READ, format_of
from mnistlab.trained.portable import About, Agreement
from mnistlab.trained.selection import Chosen
from mnistlab.util.text import counted, listed, metric_text


def card(path: Path, digest: str, about: About, chosen: Chosen, found: Agreement, *, named: bool) -> str:
    """Return the card of the model written to `path`, whose content has the sha256 `digest`, as Markdown.

    `named` says whether whoever exported it named the trial. What comes from plugins and data stands as JSON in
    fenced blocks, where nothing of it can become markup.
    """
    shape = ", ".join(map(str, about.shape))
    parts = [
        f"# Model card: {_plain(path.name)}",
        f"{_kind(about)} trained and exported by mnistlab {_plain(about.versions.get('mnistlab', ''))}.",
        _table(_facts(path, digest, about, chosen)),
        _wrapped(
            f"Input `images`: float32 (N, {shape}), pixels from 0 to 1, any N; normalisation is inside. Output "
            f"`logits`: float32 (N, {len(about.classes)}); their softmax are the probabilities of the classes, in this "
            "order:"
        ),
        _fenced(list(about.classes)),
        "## How good it is",
        _table(_figures(about, chosen, found)),
        *_notes(chosen, found),
        "## How it was chosen",
        _choice(chosen, named=named),
        "## Limits",
        _limits(about),
        "## How to load it",
        "```python\n" + format_of(path.suffix).loading.format(name=path.name, shape=shape) + "\n```",
        *([f"```sh\nmnistlab predict {_plain(path.name)} picture.png\n```"] if path.suffix in READ else []),
        "## The plan",
        _fenced(about.plan),
        "## The data",
        _fenced(about.dataset),
    ]
    return "\n\n".join(parts) + "\n"


def _kind(about: About) -> str:
    if about.members == 1:
        return "An image classifier"
    return f"An ensemble of {about.members} image classifiers, one plan on {about.members} seeds, in one file,"


def _facts(path: Path, digest: str, about: About, chosen: Chosen) -> Iterator[tuple[str, str]]:
    source, then = about.source, chosen.record.run.get("versions", {})
    yield "file", f"`{_plain(path.name)}`, sha256 `{digest}`"
    seeds = f"seed{'s' * (about.members > 1)} {listed([_plain(one.seed) for one in chosen.models])}"
    yield "from", f"run `{_plain(source['run'])}`, {_plain(chosen.title)}, {seeds}"
    yield "weights", f"sha256 {', '.join(f'`{_plain(one.weights_sha256)}`' for one in chosen.models)}"
    if about.members > 1:
        yield "cost of a prediction", f"{about.members} times that of one model"
    yield "trained with", _listed_versions({name: then[name] for name in ("mnistlab", "torch") if name in then})
    yield "exported with", _listed_versions(about.versions)
    own = len({one.split for one in chosen.models}) > 1
    known = f"mean {list(about.mean)}, standard deviation {list(about.std)}"
    yield "normalisation", "of each model its own, by the images that it was trained on" if own else known


def _listed_versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{_plain(name)} {_plain(text)}" for name, text in versions.items())


def _figures(about: About, chosen: Chosen, found: Agreement) -> Iterator[tuple[str, str]]:
    row, metric = _row(chosen), chosen.board.metric
    this = "this ensemble" if about.members > 1 else "this model"
    if chosen.validated:
        yield f"{this}, validation", _share(found.correct, found.images)
    if about.test:
        yield f"{this}, test", _share(int(about.test["correct"]), int(about.test["images"]))
    if row.validation:
        yield f"this plan, {_plain(metric)} on validation", _spread(row.validation, metric)
    if row.test:
        yield "this plan, accuracy on test", _spread(row.test.accuracy, "test_accuracy")
        yield "95 % interval of that mean", f"{_range(row.test.interval)} ({row.test.images:,} images)"
    yield "times the test set was opened", str(chosen.board.test_openings)
    if (before := chosen.board.runs_before) is not None:
        yield "runs before it that had opened this test set on its machine", str(before)


def _notes(chosen: Chosen, found: Agreement) -> Iterator[str]:
    yield _wrapped(
        f"Asked about the same {found.images:,} validation images before it was written and after it was read back, "
        f"it gave probabilities that differ by at most {found.probabilities_apart:.1e} "
        f"(logits: {found.logits_apart:.1e}) and classified {found.correct:,} correctly "
        f"({found.correct_before:,} before)."
    )
    then = _validated(chosen)
    if then is not None and round(then * found.images) != found.correct:
        yield _wrapped(
            f"In the run it had {100 * then:.2f} % on validation: there it was computed in another precision or on "
            "another device (bfloat16 where the hardware has it), here in float32 on a CPU."
        )


def _validated(chosen: Chosen) -> float | None:
    """Return the validation accuracy that the run has of these models; of an ensemble that scored no test, none."""
    if chosen.replicate:
        return chosen.replicate.metrics.get("val_accuracy")
    return chosen.record.ensemble.val_accuracy if chosen.record.ensemble and chosen.test else None


def _choice(chosen: Chosen, *, named: bool) -> str:
    by = "was named by whoever exported it" if named else "leads the ranking of its run"
    tied = ", ".join(map(_plain, chosen.board.tied))
    same = f" The leader of the ranking is tied with trial {tied}." if tied else ""
    return _wrapped(
        f"Trial {_plain(chosen.trial.trial)} {by}. Rule of the run: {_plain(chosen.board.rule)}.{same} {_which(chosen)}"
    )


def _which(chosen: Chosen) -> str:
    if not chosen.members:
        first = "this is the first that succeeded, or the one that was named, not the best"
        return f"Of its replicates on fresh seeds {first}: nothing was selected by the test set."
    scored = "" if chosen.test else " Nobody has evaluated them together on the test set."
    return (
        f"These are its replicates on {counted(len(chosen.members), 'fresh seed')}, all of them: nothing was selected "
        f"by the test set. They answer together: by the mean of the probabilities that each gives.{scored}"
    )


def _limits(about: About) -> str:
    framing, ink = about.framing, "light on dark" if about.framing.light else "dark on light"
    row, column = framing.centre
    limits = (
        f"It knows images framed as its data are: ink {ink}, its longer side about {framing.box} pixels, its centre of "
        f"mass near row {row:g}, column {column:g}. `mnistlab predict` brings a picture into this form; other programs "
        "have to do so themselves.",
        "It always answers with one of its classes, whatever is on the picture; its probabilities are not calibrated.",
        "The intervals tell of other images of the same kind, not of other writers, pens or cameras.",
    )
    return "\n".join(textwrap.fill(text, 110, initial_indent="- ", subsequent_indent="  ") for text in limits)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False)


def _row(chosen: Chosen) -> Row:
    return next(row for row in chosen.board.rows if row.trial == chosen.trial.trial)


def _share(correct: int, images: int) -> str:
    share = metric_text("test_accuracy", correct / images)
    return f"{correct:,} of {images:,}: {share}, 95 % interval {_range(wilson(correct, images))}"


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:.2f}-{100 * interval.high:.2f} %"


def _spread(value: MeanSd, metric: str) -> str:
    """Return a mean over seeds; of one that lacks a standard deviation there is none to show."""
    sd = "" if value.sd is None else f", standard deviation {metric_text(metric, value.sd)}"
    return f"{metric_text(metric, value.mean)} over {counted(value.n, 'fresh seed')}{sd}"


def _table(rows: Iterator[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows)])


def _fenced(value: Mapping[str, Any] | list[str]) -> str:
    return "```json\n" + json.dumps(value, indent=1) + "\n```"


def _plain(value: object) -> str:
    """Return text in which nothing is markup: what is no letter, digit or plain punctuation is written out."""
    kept = " .,;:-_+=()%/'·"
    return "".join(c if c.isalnum() or c in kept else f"&#{ord(c)};" for c in str(value))
