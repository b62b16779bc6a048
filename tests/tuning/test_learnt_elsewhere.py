"""What a sampler learns where it has not tried anything: under another model, or from the results of earlier runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import pytest

from mnistlab.experiment import loader
from mnistlab.experiment.earlier import Earlier, Result
from mnistlab.experiment.loader import Experiment
from mnistlab.experiment.space import suggest
from mnistlab.tuning.study import ask, enqueue, new_study
from tests.simulated.driving import registry

pytestmark = pytest.mark.simulated

SPACE = """
name = "branches"
[data]
dataset = "digits"
[model.mlp]
[model.lenet]
[optimizer.sgd]
lr = { low = 0.003, high = 1.0, log = true }
momentum = 0.9
[optimizer.adamw]
[transform.shift]
pixels = [0, 1, 2]
[training]
batch_size = { low = 8, high = 512, log = true }
[search]
trials = 32
"""
ALGORITHMS = [("tpe", "halving"), ("tpe", "none"), ("auto", "halving")]
GOOD = {"optimizer.sgd.lr": 0.5, "training.batch_size": 300, "transform.shift.pixels": 2}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def wanted(folder: Path, algorithm: str, scheduler: str, seed: int = 0) -> Experiment:
    file = folder / "x.toml"
    file.write_text(f'{SPACE}algorithm = "{algorithm}"\nscheduler = "{scheduler}"\n')
    return loader.load(file, (f"seed={seed}",), registry())


def worth(point: Mapping[str, Any]) -> float:
    """A value that the settings of all branches decide, the same way in each of them."""
    apart = [math.log(point[key] / best) / math.log(512) for key, best in GOOD.items() if key[-1] in "re"]
    return 1 - sum(map(abs, apart)) - (point["transform.shift.pixels"] != 2) / 4


def points(of: Experiment, count: int, **fixed: str) -> Iterator[dict[str, Any]]:
    """Yield random points in which these choices are fixed."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(7))
    for _ in range(count):
        enqueue(study, of.space, fixed)
        trial = study.ask()
        point: dict[str, Any] = {}

        def answer(one: Any, trial: optuna.Trial = trial, point: dict[str, Any] = point) -> Any:
            point[one.path] = ask(trial, one)
            return point[one.path]

        suggest(of.space, answer)
        yield point


def told(study: optuna.Study, of: Experiment, known: Iterator[dict[str, Any]]) -> None:
    """Let the study propose these points, and tell it what they are worth."""
    for point in known:
        enqueue(study, of.space, point)
        trial = study.ask()
        suggest(of.space, lambda one, trial=trial: ask(trial, one))
        trial.report(worth(point), 0)
        study.tell(trial, worth(point))


def proposed(study: optuna.Study, of: Experiment, count: int = 10) -> list[float]:
    """Return what the plans that it proposes under a model of which it knows nothing would be worth."""
    found = []
    for _ in range(count):
        enqueue(study, of.space, {"model": "lenet", "optimizer": "sgd"})
        trial = study.ask()
        suggest(of.space, lambda one, trial=trial: ask(trial, one))
        found.append(worth(trial.params))
    return found


def gained(folder: Path, algorithm: str, scheduler: str, teach: Callable[[Experiment], optuna.Study]) -> list[float]:
    """Return for some seeds how much better proposals are, in the median, than those of a study that knows nothing."""
    gains = []
    for seed in range(3):
        of = wanted(folder, algorithm, scheduler, seed)
        gains.append(median(proposed(teach(of), of)) - median(proposed(new_study(of.spec, of.space), of)))
    return gains


@pytest.mark.parametrize(("algorithm", "scheduler"), ALGORITHMS)
def test_what_was_learnt_under_one_model_counts_under_another(tmp_path: Path, algorithm: str, scheduler: str) -> None:
    """The optimizer's rate, the batch size and a transform are the same settings, whichever model is trained."""

    def teach(of: Experiment) -> optuna.Study:
        study = new_study(of.spec, of.space)
        told(study, of, points(of, 24, model="mlp", optimizer="sgd"))
        return study

    gains = gained(tmp_path, algorithm, scheduler, teach)
    assert median(gains) > 0.1, gains


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
@pytest.mark.parametrize(("algorithm", "scheduler"), ALGORITHMS)
def test_results_of_earlier_runs_start_the_model(tmp_path: Path, algorithm: str, scheduler: str, metric: str) -> None:
    def teach(of: Experiment) -> optuna.Study:
        spec = of.spec.model_copy(update={"search": of.spec.search.model_copy(update={"metric": (metric,)})})
        return new_study(spec, of.space, (lent(of),))

    gains = gained(tmp_path, algorithm, scheduler, teach)
    assert median(gains) > 0.1, gains


def lent(of: Experiment, **about: Any) -> Earlier:
    ordered = sorted(points(of, 24, model="mlp", optimizer="sgd"), key=worth)
    results = tuple(Result(f"{at:04}", point, (at + 0.5) / 24, True) for at, point in enumerate(ordered))
    none = Earlier(
        run="x-1", created="", sha256="", dataset="x", images_sha256="", images=1, epochs=8, plans=24, results=results
    )
    return replace(none, **about)


def test_values_of_two_runs_are_never_compared_where_there_are_several_metrics(tmp_path: Path) -> None:
    of = wanted(tmp_path, "tpe", "none")
    search = of.spec.search.model_copy(update={"metric": ("val_accuracy", "val_loss")})
    spec = of.spec.model_copy(update={"search": search})
    assert proposed(new_study(spec, of.space, (lent(of),)), of) == proposed(new_study(spec, of.space), of)
