"""What a run says of itself: `run.json` and the records after it, and the event with which each driver begins."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mnistlab
from mnistlab import events
from mnistlab.data import images_digest
from mnistlab.experiment import earlier
from mnistlab.experiment.dataset import Data
from mnistlab.experiment.loader import Experiment, proposals_of
from mnistlab.experiment.portfolio import looks_of
from mnistlab.experiment.spec import ExperimentSpec, spec_json
from mnistlab.experiment.versions import versions_here
from mnistlab.plugins.registry import Registry
from mnistlab.store.metric import Metric
from mnistlab.tuning.reopen import Reopened
from mnistlab.tuning.resources import Machine, Share
from mnistlab.tuning.schedulers.halving import found_rungs, rungs_of, trainings
from mnistlab.util.credentials import without_credentials
from mnistlab.util.text import few_images


def rule_of(spec: ExperimentSpec) -> str:
    """Return in a sentence what "best" means in a run of `spec`."""
    metric = spec.search.metric[0]
    better = "higher" if Metric(metric).higher_is_better else "lower"
    rule = f"{metric} at the last epoch of the full budget, {better} is better"
    early = "trials that ended early rank below the others"
    if not spec.confirm.top:
        return f"{rule}; {early}"
    confirmed = (
        "among confirmed plans those that have all of their fresh seeds come first, then what paired comparisons tell "
        "apart counts, then the mean over the seeds"
    )
    return f"{rule}; {early}; {confirmed}"


def config_of(spec: ExperimentSpec) -> str:
    """Return the beginning of the sha256 of an experiment with all its defaults."""
    return hashlib.sha256(json.dumps(spec_json(spec), sort_keys=True).encode()).hexdigest()[:12]


def started(
    experiment: Experiment,
    data: Data,
    machine: Machine,
    portion: Share,
    replicates: int,
    registry: Registry,
    path: Path,
    executor: str,
) -> events.RunStarted:
    """Return the event with which a search by that executor begins; so many `replicates` run at once later."""
    spec = experiment.spec
    rungs = rungs_of(spec, experiment.space, len(data.division.train))
    return events.RunStarted(
        run=path.name,
        experiment=spec.name,
        directory=str(path),
        seed=spec.seed,
        dataset=data.choice.record.name + few_images(len(data.division.train), data.division.left_out),
        fallback=data.fallback and f"{experiment.dataset.record.name} is not available: {data.fallback}",
        trials=spec.search.trials,
        epochs=experiment.space.epochs,
        parallel=portion.parallel,
        parallel_replicates=replicates,
        executor=executor,
        devices=str(machine),
        metric=spec.search.metric[0],
        rule=rule_of(spec),
        algorithm=spec.search.algorithm,
        scheduler=spec.search.scheduler,
        plugins=registry.versions(),
        config=config_of(spec),
        confirm_top=spec.confirm.top,
        confirm_seeds=spec.confirm.seeds,
        confirm_baseline=spec.confirm.baseline,
        time_budget=spec.search.time_budget or 0.0,
        rungs=tuple(rung.budget for rung in rungs),
        trainings=trainings(rungs, spec, portion.parallel),
        proposals=proposals_of(experiment, looks_of(spec.search, experiment.earlier), portion.parallel),
        like=tuple(map(earlier.text, experiment.earlier)),
    )


def resumed(
    found: Reopened,
    machine: Machine,
    portion: Share,
    replicates: int,
    again: Sequence[str],
    ended: Mapping[str, int],
    number: int,
    command: str,
    executor: str,
) -> events.RunResumed:
    """Return the event with which a search goes on: trials that are started `again`, counts of those that `ended`.

    So many `replicates` run at once later. `number` is that of the record that holds from here on.
    """
    search = found.experiment.spec.search
    return events.RunResumed(
        command=command,
        trials=search.trials,
        parallel=portion.parallel,
        parallel_replicates=replicates,
        executor=executor,
        devices=str(machine),
        counts=dict(ended),
        again=tuple(again),
        changes=dict(found.changes),
        amended={**found.untold, **found.added},
        record=number,
        time_budget=search.time_budget or 0.0,
        config=config_of(found.experiment.spec),
        plugins=found.registry.versions(),
        trainings=trainings(found_rungs(found.record), found.experiment.spec, portion.parallel),
        proposals=proposals_of(found.experiment, found.record.run.get("first_looks", 1), portion.parallel),
    )


def run_record(
    experiment: Experiment, data: Data, machine: Machine, portion: Share, registry: Registry, command: str
) -> Mapping[str, Any]:
    """Return the content of `run.json`: everything needed to say what was done and to do it again."""
    spec = experiment.spec
    return {
        "experiment": spec_json(spec),
        "seed": spec.seed,
        "metric": spec.search.metric[0],
        "metrics": list(spec.search.metric),
        "rule": rule_of(spec),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "dataset": _dataset_record(experiment, data),
        "machine": _machine_record(machine, portion),
        "asked": experiment.asked,
        "first_looks": looks_of(spec.search, experiment.earlier),
        "proposals": proposals_of(experiment, looks_of(spec.search, experiment.earlier), portion.parallel),
        "like": [asdict(run) for run in experiment.earlier],
        "rungs": [rung.budget for rung in rungs_of(spec, experiment.space, len(data.division.train))],
        **_code_record(registry),
    }


def amended_record(found: Reopened, command: str) -> Mapping[str, Any]:
    """Return the record that takes the place of a run's newest one: the same run with what was added to its space."""
    return {
        **found.record.run,
        "experiment": spec_json(found.experiment.spec),
        "like": [asdict(run) for run in found.experiment.earlier],
        "command": command,
        "amended": dict(found.added),
        "amended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **_code_record(found.registry),
    }


def _code_record(registry: Registry) -> Mapping[str, Any]:
    """Return which code a run rests on: plugins, libraries, and this package itself."""
    return {
        "plugins": registry.versions(),
        "plugin_files": {file.name: file.version for file in registry.selection.files},
        "plugins_not_loaded": {p.title: without_credentials(p.reason) for p in registry.plugins if p.status != "ok"},
        "versions": versions_here(),
        "code_sha256": _code_digest(),
    }


def _dataset_record(experiment: Experiment, data: Data) -> Mapping[str, Any]:
    how, left_out = "stratified" if data.fallback else experiment.spec.data.split, data.division.left_out
    return {
        "name": data.choice.record.name,
        "requested": experiment.dataset.record.name,
        "fallback": data.fallback,
        "plugin": data.choice.offer.qualified,
        "version": data.choice.offer.version,
        "source": without_credentials(data.info.source),
        "sha256": dict(data.info.sha256),
        "images_sha256": images_digest(data.images),
        "train": len(data.division.train),
        "validation": len(data.division.validation),
        "test": data.info.test_count,
        "split": how,
        "split_sha256": data.division.digest(),
        "validation_indices": data.division.validation.tolist(),
        **({"left_out": left_out, "train_indices": data.division.train.tolist()} if left_out else {}),
    }


def _machine_record(machine: Machine, portion: Share) -> Mapping[str, Any]:
    return {
        "device": str(machine),
        "processor": platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "parallel": portion.parallel,
        "cpus_per_trial": portion.cpus,
        "gpus_per_trial": portion.gpus,
    }


def _code_digest() -> str:
    """Return the sha256 of this package's own source files, in the order of their names."""
    root, whole = Path(mnistlab.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        whole.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()
