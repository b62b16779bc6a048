"""A simulated worker: it answers as `mnistlab.tuning.ray.trainable.PlanTrainable` does, without training anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mnistlab.tuning.worker.leaving import LeftError
from tests.simulated.curves import fate, measured


class WorkerDiedError(LeftError):
    """The process is gone: nothing comes from it any more."""


class Worker:
    """One trial, from its task to its last report. `state`, if given, is what an earlier worker has packed."""

    def __init__(self, config: Mapping[str, Any], failing: float, keep_every: int) -> None:
        """Begin the task in `config`; every `keep_every` epochs the state is reported too."""
        task = json.loads(config["task"])
        self._plan, self._seed, self._budget = task["plan"], task["seed"], task.get("budget")
        self._epochs = max(1, round(self._budget or self._plan["training"]["epochs"]))
        self._fate, self._keep_every = fate(self._plan, failing), keep_every
        self._history: list[dict[str, float]] = []
        self._went_on = config.get("state") is not None
        if self._went_on:
            self._history = unpacked(config["state"], self._plan, self._seed, self._epochs)

    def step(self) -> dict[str, Any]:
        """Return the report of the next epoch.

        Raises:
            WorkerDiedError: where that is the plan's fate.
        """
        epoch = len(self._history) + 1
        failed = self._fate.kind in {"nan", "plugin"} and epoch >= self._fate.at
        if self._fate.kind == "worker" and epoch >= self._fate.at:
            raise WorkerDiedError(f"the process died in epoch {epoch}")
        if failed:
            message = f"simulated: {self._fate.kind} in epoch {epoch}"
            return self._answer() | {"cause": self._fate.kind, "message": message, "done": True}
        self._history.append(measured(self._plan, self._seed, epoch))
        return self._report()

    def _report(self) -> dict[str, Any]:
        metrics, done = self._history[-1], len(self._history) >= self._epochs
        report = self._answer() | metrics
        report |= {"parameters": 1000, "macs": 500, "metrics": json.dumps(metrics), "done": done}
        if self._went_on:
            report["history"], self._went_on = json.dumps(self._history), False
        if not done and len(self._history) % self._keep_every == 0:
            report["state"] = packed(self._plan, self._seed, self._history, self._epochs)
        return report

    def _answer(self) -> dict[str, Any]:
        return {
            "epoch": len(self._history),
            "epochs": self._epochs,
            "plan": json.dumps(self._plan),
            "seed": self._seed,
            "log": f"after {len(self._history)} epochs\n",
            **({} if self._budget is None else {"budget": self._budget}),
        }


def packed(plan: Mapping[str, Any], seed: int, history: list[dict[str, float]], epochs: int) -> bytes:
    """Return the state of a training of so many epochs in all, after those of its history."""
    return json.dumps({"plan": plan, "seed": seed, "history": history, "epochs": epochs}).encode()


def unpacked(state: bytes, plan: Mapping[str, Any], seed: int, epochs: int) -> list[dict[str, float]]:
    """Return the history in a state; a training never goes on from the state of another one, or of another rung."""
    found = json.loads(state)
    assert (found["plan"], found["seed"]) == (plan, seed), "the state of another trial was handed out"
    assert found["epochs"] == epochs, "the state of another rung was handed out"
    return found["history"]
