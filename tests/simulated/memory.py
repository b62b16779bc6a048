"""Searches of which nothing is written: who proposes and who judges, over simulated workers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import cmaes
import numpy as np
from optuna.trial import FrozenTrial

from mnistlab.experiment import loader
from mnistlab.tuning.outcome import Interruptions
from mnistlab.tuning.resources import Share
from mnistlab.tuning.schedulers import scheduler
from mnistlab.tuning.schedulers.common import Wanted
from mnistlab.tuning.searcher import Bridge, SearcherOptions
from mnistlab.tuning.study import new_study
from tests.simulated import worker
from tests.simulated.controller import Controller, World
from tests.simulated.curves import shares
from tests.simulated.driving import registry

Plan = Mapping[str, Any]

NUMBERS = """
[model.mlp]
depth = 2
width = { low = 32, high = 1024 }
dropout = { low = 0.0, high = 0.5 }
activation = "gelu"
batch_norm = true
[optimizer.sgd]
lr = { low = 0.005, high = 1.0, log = true }
momentum = { low = 0.5, high = 0.98 }
weight_decay = 1e-6
schedule = "constant"
warmup = 0.0
"""
ONE = (
    NUMBERS.replace("width = { low = 32, high = 1024 }", "width = 64")
    .replace("dropout = { low = 0.0, high = 0.5 }", "dropout = 0.1")
    .replace("momentum = { low = 0.5, high = 0.98 }", "momentum = 0.9")
)
LISTS = (
    NUMBERS.replace("{ low = 32, high = 1024 }", "[32, 64, 128, 256, 512, 1024]")
    .replace("{ low = 0.0, high = 0.5 }", "[0.0, 0.1, 0.2, 0.3]")
    .replace("{ low = 0.005, high = 1.0, log = true }", "[0.005, 0.02, 0.1]")
    .replace("{ low = 0.5, high = 0.98 }", "[0.5, 0.8, 0.95]")
)
BRANCHES = (
    NUMBERS
    + """
[model.lenet]
width = { low = 0.5, high = 4.0 }
dropout = 0.0
pooling = "max"
activation = ["relu", "tanh"]
"""
)
SPACES = {"numbers": NUMBERS, "one number": ONE, "lists": LISTS, "two models": BRANCHES}


@dataclass
class Searched:
    """What came of a search: its trials, how many proposals a model made, and how often CMA-ES moved on."""

    trials: list[FrozenTrial] = field(default_factory=list[FrozenTrial])
    plans: list[Plan] = field(default_factory=list[Plan])
    chosen: dict[int, set[str]] = field(default_factory=dict[int, set[str]])  # by trial: what the algorithm proposed
    generations: int = 0  # of CMA-ES

    @property
    def modelled(self) -> int:
        """Return how many of the plans that were tried hold a value that the algorithm itself proposed."""
        return sum(bool(self.chosen.get(one.number)) for one in self.trials if "repeats" not in one.user_attrs)

    @property
    def late(self) -> float:
        """Return how good the plans of the second half are on average."""
        half = self.plans[len(self.plans) // 2 :]
        return float(np.mean([quality(plan) for plan in half]))

    @property
    def best(self) -> float:
        return max(quality(plan) for plan in self.plans)


def quality(plan: Plan) -> float:
    """Return how good a plan is in the end, from 0 to 1: smooth in its numbers, the models' own ones included."""
    model, optimizer = plan["model"], plan["optimizer"]["config"]
    lost = 0.15 * math.log10(optimizer["lr"] / 0.05) ** 2 + 0.3 * (optimizer["momentum"] - 0.8) ** 2
    if model["name"] == "mlp":
        lost += 0.02 * math.log2(model["config"]["width"] / 256) ** 2 + (model["config"]["dropout"] - 0.2) ** 2
    else:
        lost += 0.1 + 0.02 * math.log2(model["config"]["width"]) ** 2
    return max(0.1, 0.99 - lost)


def _measured(plan: Plan, seed: int, epoch: int) -> dict[str, float]:
    """Return the metrics of an epoch: curves of different plans cross, and a seed moves each of them a little."""
    speed, luck = 0.3 + shares("speed", sorted(map(str, plan.items())))[0], shares("luck", seed, epoch)[0]
    accuracy = (quality(plan) + 0.004 * (luck - 0.5)) * (1 - math.exp(-speed * epoch))
    return {"val_accuracy": accuracy, "val_loss": 1 - accuracy, "train_loss": 1 - accuracy, "parameters": 1000.0}


def searched(
    folder: Path, space: str, search: str, *, seed: int = 0, parallel: int = 1, failing: float = 0.0
) -> Searched:
    """Return what came of a search of `space` by a `[search]` table, of 9 epochs a trial."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "x.toml"
    training = "[training]\nepochs = 9\nbatch_size = 64\n"
    file.write_text(f'name = "x"\nseed = {seed}\n[data]\ndataset = "digits"\n{space}\n{training}[search]\n{search}')
    wanted = loader.load(file, (), registry())
    study, cut = new_study(wanted.spec, wanted.space), Interruptions(lambda: "")
    bridge = Bridge(study, wanted.space, wanted.spec, SearcherOptions(parallel=parallel, interruptions=cut))
    judge = scheduler(Wanted(wanted.spec, wanted.space, lambda: False))
    deaf: Any = SimpleNamespace(idle=lambda: True, **dict.fromkeys(_TOLD, lambda *_: None))
    parts: Any = SimpleNamespace(
        bridge=bridge, scheduler=judge, recorder=deaf, interruptions=cut, stopping=lambda: False
    )
    about: Any = SimpleNamespace(share=Share(1, 0.0, parallel))
    found = Searched()
    np.random.seed(seed)  # from there Ray draws a trial's bracket
    with _counted(study.sampler, found), patch.object(worker, "measured", _measured):
        controller = Controller(about, parts, World(seed, spread=3.0, failing=failing))
        controller.run()
    found.trials = study.get_trials()
    found.plans = [json.loads(trial.config["task"])["plan"] for trial in controller.get_trials()]
    return found


_TOLD = ("on_trial_start", "on_step_end", "on_trial_result", "on_trial_complete", "on_trial_error")


@contextmanager
def _counted(sampler: Any, found: Searched) -> Iterator[None]:
    proposes, tells = sampler.sample_relative, cmaes.CMA.tell

    def proposed(study: Any, trial: FrozenTrial, space: Any) -> Any:
        values = proposes(study, trial, space)
        found.chosen[trial.number] = set(values)
        return values

    def told(*about: Any) -> None:
        found.generations += 1
        tells(*about)

    with patch.object(sampler, "sample_relative", proposed), patch.object(cmaes.CMA, "tell", told):
        yield
