"""Plans, metrics and times in a few words, for people. Only the standard library: everybody may import this."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import zip_longest
from typing import Any

Scalar = bool | int | float | str
Plan = Mapping[str, Any]

ACCURACIES = frozenset({"val_accuracy", "train_accuracy", "test_accuracy"})
EXECUTOR_NAMES = ("ray", "local")  # the first carries out a search unless another is named; see tuning/executors.py
NAMES = frozenset({"model", "optimizer"})  # the settings that `names` tells already
ASCII = str.maketrans({"±": "+/-", "·": "|", "…": "...", "×": "x", "−": "-"})


def settings(plan: Plan) -> dict[str, Scalar]:
    """Return every setting of a plan under the dotted key that `--set` takes: `model.cnn.depth`, `training.epochs`.

    `model`, `optimizer` and `transforms` hold the names. What is neither number nor text stands as JSON.
    """
    flat: dict[str, Scalar] = {}
    for kind in ("model", "optimizer"):
        if part := plan.get(kind):
            flat[kind] = str(part["name"])
            flat |= _dotted(f"{kind}.{part['name']}", part.get("config", {}))
    transforms = plan.get("transforms", ())
    flat["transforms"] = ", ".join(str(part["name"]) for part in transforms)
    for part in transforms:
        flat |= _dotted(f"transform.{part['name']}", part.get("config", {}))
    return flat | _dotted("training", plan.get("training", {}))


def epochs_text(budget: float) -> str:
    """Return for example `8 epochs`, `1 epoch` or `0.5 epochs`."""
    return counted(int(budget), "epoch") if budget == int(budget) else f"{budget:g} epochs"


def scheduler_text(scheduler: str, rungs: Sequence[float]) -> str:
    """Return for example `halving at 0.5, 2 and 8 epochs`, or the scheduler alone where it has no such rungs."""
    if len(rungs) < 2:
        return scheduler + " (each trial in full)" * bool(rungs)
    return f"{scheduler} at {listed([f'{budget:g}' for budget in rungs])} epochs"


def names(plan: Plan) -> str:
    """Return for example `cnn · adamw`."""
    return " · ".join(str(plan[kind]["name"]) for kind in ("model", "optimizer") if plan.get(kind))


def plan_label(plan: Plan, limit: int = 60) -> str:
    """Return for example `cnn depth=3 channels=32 … · adamw lr=0.003 · shift`, at most `limit` characters.

    The names come first; then settings of model and optimizer in turn, in the order in which the plugin declares
    them (the learning rate before the others), for as long as they fit.
    """
    parts = [_part_words(plan[kind]) for kind in ("model", "optimizer") if plan.get(kind)]
    shown = [1 for _ in parts]
    tail = "".join(f" · {part['name']}" for part in plan.get("transforms", ()))
    if len(_joined(parts, shown) + tail) > limit:
        tail = ""
    for part, step in _turns(parts):
        longer = [count + (i == part) for i, count in enumerate(shown)]
        if shown[part] == step and len(_joined(parts, longer) + tail) <= limit:
            shown = longer
    return shortened(_joined(parts, shown) + tail, limit)


def varying(plans: Collection[Plan]) -> tuple[str, ...]:
    """Return the dotted keys that take two or more values among `plans`, names aside: what the search was about."""
    return varying_settings([settings(plan) for plan in plans])


def varying_settings(flats: Collection[Mapping[str, Scalar]]) -> tuple[str, ...]:
    """Return the same as `varying`, of plans whose `settings` are known already."""
    first: dict[str, Scalar] = {}
    varied: set[str] = set()
    for flat in flats:
        for key, value in flat.items():
            known = first.setdefault(key, value)
            if known is not value and (known != value or type(known) is not type(value)):
                varied.add(key)
    return tuple(key for key in first if key in varied and key not in NAMES)


def chosen_text(flat: Mapping[str, Scalar], keys: Collection[str]) -> str:
    """Return those of `keys` that a plan's `settings` have, for example `channels=32 lr=0.003 shift.pixels=2`.

    A key is cut to its last word, or to the last two where that alone would be ambiguous in this plan.
    """
    ends = {key: _ends(key) for key in flat if key in keys and flat[key] != ""}
    last = Counter([one for one, _ in ends.values()])
    return " ".join([f"{two if last[one] > 1 else one}={scalar_text(flat[key])}" for key, (one, two) in ends.items()])


@cache
def _ends(key: str) -> tuple[str, str]:
    """Return the last word of a dotted key, and the last two."""
    parts = key.split(".")
    return parts[-1], ".".join(parts[-2:])


def scalar_text(value: Scalar) -> str:
    """Return a setting as it would stand in TOML, numbers to three digits."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def metric_text(metric: str, value: float | None) -> str:
    """Return a metric's value: accuracies in per cent, counts with separators, `-` for None."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if metric in ACCURACIES:
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if metric in {"parameters", "images_per_second"} else f"{value:.4g}"


def range_text(metric: str, low: float, high: float, most: float = math.inf) -> str:
    """Return for example `98.80, 99.02`: two ends of a known interval, without the unit, from 0 to `most`.

    Ends that would look the same move outward by one in their last digit: an interval is never shown with width zero.
    """
    texts = [metric_text(metric, min(most, max(0.0, value))) for value in (low, high)]
    if texts[0] == texts[1]:
        digit = _last_digit(metric, max(abs(low), abs(high)))
        texts = [metric_text(metric, min(most, max(0.0, value))) for value in (low - digit, high + digit)]
    return ", ".join(text.removesuffix(" %") for text in texts)


def _last_digit(metric: str, value: float) -> float:
    """Return what one more in the last digit of `metric_text` stands for."""
    if metric in ACCURACIES:
        return 1e-4
    if metric in {"parameters", "images_per_second"}:
        return 1.0
    return 10.0 ** (math.floor(math.log10(value)) - 3) if value else 0.0


def seconds_text(seconds: float) -> str:
    """Return for example `4.2s`, `48s`, `2m10s` or `1h02m`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def few_images(count: int, left_out: int) -> str:
    """Return what is said after a dataset's name where it is trained on a part only."""
    return f" ({counted(count, 'training image')})" if left_out else ""


def resume_command(run: object, executor: str = EXECUTOR_NAMES[0]) -> str:
    """Return the command that goes on with a run by the same executor, as a shell takes it."""
    return f"mnistlab resume {shlex.quote(str(run))}{by_executor(executor)}"


def by_executor(executor: str) -> str:
    """Return the option that names an executor; "" for the one that is taken without it."""
    return f" --executor {executor}" if executor != EXECUTOR_NAMES[0] else ""


def runs_before_text(runs: int) -> str:
    """Return for example `this machine had opened this test set in 12 other runs before`."""
    return f"this machine had opened this test set in {counted(runs, 'other run') if runs else 'no other run'} before"


def counted(count: int, noun: str) -> str:
    """Return for example `1 seed` or `1,000 images`."""
    return f"{count:,} {noun}" + ("s" if count != 1 else "")


def listed(words: Sequence[str]) -> str:
    """Return for example `0003, 0005 and 0007`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def shortened(text: str, limit: int) -> str:
    """Return `text`, or its beginning with an ellipsis where it has more than `limit` characters."""
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"


def unbroken(text: str) -> str:
    """Return `text` on one line: whatever white space there is between words becomes one space."""
    return " ".join(text.split())


def error_text(error: BaseException) -> str:
    """Return the kind of an error and what it says, on one line."""
    said = unbroken(str(error))
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def visible(text: str) -> str:
    r"""Return `text` with every control, format and bidirectional character written out, so ESC becomes `\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def encodable(text: str, encoding: str | None) -> str:
    """Return `text` as a stream of `encoding` can carry it: signs spelt in ASCII, other letters escaped."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        plain = text.translate(ASCII)
        return plain.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
    return text


def _dotted(prefix: str, config: Mapping[str, Any]) -> dict[str, Scalar]:
    flat: dict[str, Scalar] = {}
    for key, value in config.items():
        if isinstance(value, (bool, int, float, str)):
            flat[f"{prefix}.{key}"] = value
        elif isinstance(value, Mapping):
            flat |= _dotted(f"{prefix}.{key}", value)
        else:
            flat[f"{prefix}.{key}"] = json.dumps(value)
    return flat


def _part_words(part: Mapping[str, Any]) -> list[str]:
    """Return the name, then `key=value` of each setting, the learning rate first."""
    flat = _dotted("", part.get("config", {}))
    ordered = sorted(flat.items(), key=lambda item: item[0] not in {".lr", ".learning_rate"})
    return [str(part["name"]), *(f"{key[1:]}={scalar_text(value)}" for key, value in ordered)]


def _turns(parts: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Return (part, word) of each setting: every part's first, then every part's second, and so on."""
    columns = zip_longest(*([(i, step) for step in range(1, len(words))] for i, words in enumerate(parts)))
    return [turn for column in columns for turn in column if turn is not None]


def _joined(parts: Sequence[Sequence[str]], shown: Sequence[int]) -> str:
    """Return the first `shown` words of each part, with an ellipsis where words are left out."""
    cut = [[*words[:count], *["…"] * (count < len(words))] for words, count in zip(parts, shown, strict=True)]
    return " · ".join(" ".join(words) for words in cut)
