"""A finished run made in this process, without Ray: the plan of all defaults as trial 0000, confirmed on two seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

from mnistlab.cli.main import app
from mnistlab.data import default_place, open_test
from mnistlab.data.device import to_device, upload
from mnistlab.errors import MnistlabError
from mnistlab.experiment import loader
from mnistlab.experiment.dataset import find_data
from mnistlab.experiment.space import defaults, suggest
from mnistlab.plugins.discovery import selection
from mnistlab.store import RunWriter, create_run
from mnistlab.store.results import ReplicateResult, TestScore, TrialResult
from mnistlab.training import loop, weights
from mnistlab.tuning.resources import Machine, Share
from mnistlab.tuning.run import run_record
from mnistlab.util.seal import opened
from mnistlab.util.seeds import replicate_seed, trial_seed
from mnistlab.util.text import plan_label

DIGITS = """
name = "small"
[data]
dataset = "digits"
validation = 300
[model.cnn]
depth = 2
channels = 16
[training]
epochs = 2
batch_size = 64
[confirm]
top = 1
baseline = false
seeds = 2
"""


def bits(correct: torch.Tensor) -> str:
    return "".join("1" if one else "0" for one in correct.tolist())


def finished_run(
    root: Path, text: str = DIGITS, *, data_dir: Path | None = None, plugins: tuple[Path, ...] = ()
) -> Path:
    """Train, confirm and write a run as a search would; return its directory."""
    file = root / "x.toml"
    file.write_text(text)
    asked, registry = loader.open_with(file, (), selection(plugins, only_built_in=True))
    place = default_place(data_dir)
    found = find_data(asked, place)
    path = create_run(root / "runs", asked.spec.name, datetime(2026, 11, 24, tzinfo=UTC))
    writer = RunWriter(path)
    said = run_record(asked, found, Machine(2, 0), Share(1, 0.0, 1), registry, "mnistlab search x.toml")
    writer.write_run({"run": path.name, **said})
    for source in registry.selection.files:
        writer.write_plugin(source.name, source.source)
    device = loop.set_up_process(1, gpu=False)
    data = to_device(found.images, found.division, found.info.shape, device)
    with opened():  # as the confirmation does
        test = upload(open_test(found.choice.record, found.choice.config, place), device)
    point = defaults(asked.space)
    plan = suggest(asked.space, lambda parameter: point[parameter.path])
    writer.write_trial(_trial(plan, loop.train(plan, trial_seed(asked.spec.seed, 0), data, registry)))
    for number in range(1, asked.spec.confirm.seeds + 1):
        one = loop.train(plan, replicate_seed(asked.spec.seed, number), data, registry)
        packed = weights.pack_weights(one.module)
        writer.write_replicate(_replicate(number, one, packed, test), packed)
    writer.close()
    return path


def _trial(plan: Mapping[str, Any], one: loop.Training) -> TrialResult:
    return TrialResult(
        trial="0000",
        number=0,
        state="complete",
        seed=one.seed,
        plan=plan,
        label=plan_label(plan),
        history=tuple(one.history),
        metrics={**one.history[-1], "parameters": loop.count_parameters(one.module)},
        seconds=1.0,
    )


def _replicate(
    number: int, one: loop.Training, packed: bytes, test: tuple[torch.Tensor, torch.Tensor]
) -> ReplicateResult:
    validation = loop.evaluate(one, one.data.validation_images, one.data.validation_labels)
    tested = loop.evaluate(one, *test)
    return ReplicateResult(
        trial="0000",
        replicate=number,
        seed=one.seed,
        metrics={**one.history[-1], "parameters": loop.count_parameters(one.module)},
        history=tuple(one.history),
        seconds=1.0,
        weights_sha256=hashlib.sha256(packed).hexdigest(),
        val_correct=bits(validation.correct),
        test=TestScore(correct=int(tested.correct.sum()), images=len(tested.correct), loss=tested.loss),
        test_correct=bits(tested.correct),
    )


def change(path: Path, edit: Callable[[Any], None]) -> None:
    """Edit a JSON file of a run."""
    body = json.loads(path.read_text())
    edit(body)
    path.write_text(json.dumps(body))


def typed(*arguments: object) -> tuple[int, str]:
    """Run a command in this process; what is refused comes as its message, as `main` prints it."""
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    if isinstance(result.exception, MnistlabError):
        return int(result.exception.exit_code), str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output
