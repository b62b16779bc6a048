"""Tiny searches in this process or by one warm Ray, with a model that fails on request and images to be learnt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import optuna
import pytest

from mnistlab import events
from mnistlab.api import DataPlace
from mnistlab.experiment import loader
from mnistlab.experiment.dataset import find_data
from mnistlab.plugins.discovery import Selection, discover
from mnistlab.plugins.registry import Registry, load
from mnistlab.store import RunWriter, create_run, read_events, read_run
from mnistlab.store.results import TrialResult
from mnistlab.tuning.context import Executor, Search
from mnistlab.tuning.driver import run_search
from mnistlab.tuning.history import NOTHING, past_of
from mnistlab.tuning.local_executor import LOCAL
from mnistlab.tuning.ray.cluster import cluster
from mnistlab.tuning.ray.executor import RAY_TUNE
from mnistlab.tuning.ray.nodes import Nodes
from mnistlab.tuning.resources import Machine, Share, room
from mnistlab.tuning.run import shared_of
from mnistlab.util.seal import sealed
from tests.conftest import PACKAGES

DISTS = Path(__file__).parent / "dists"
MACHINE = Machine(cpus=2, gpus=0)


@contextmanager
def moody_on_the_path() -> Iterator[None]:
    """Put the test plugin for a while on the path of this process and of those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(DISTS), os.environ.get("PYTHONPATH")])))
        patch.syspath_prepend(DISTS)
        yield


@pytest.fixture(scope="session")
def loads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file in which the dataset `watched` notes who asks for what, in whatever process."""
    folder = tmp_path_factory.mktemp("moody")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("loads", "deaths", "children", "gate", "came", "lonely"):
            patch.setenv(f"MOODY_{name.upper()}", str(folder / name))
        yield folder / "loads"


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The plugins of mnistlab and of this package's tests: each worker would take seconds for those installed here."""
    with moody_on_the_path():
        return load(discover(), Selection(disabled=frozenset(PACKAGES)))


@pytest.fixture(scope="package")
def ray_session(loads: Path) -> Iterator[None]:
    """One warm Ray, from the first test of this package that asks for it until others' tests come, which may fork."""
    with ExitStack() as stack:
        with moody_on_the_path():  # Ray's workers inherit what is set when it starts
            stack.enter_context(cluster(None, MACHINE))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four IDX files: 96 + 40 images of 8x8 whose brighter half tells the class."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for part, count in (("train", 96), ("t10k", 40)):
        labels = (np.arange(count) % 2).astype(np.uint8)
        images = rng.integers(0, 120, (count, 8, 8), dtype=np.uint8)
        images[labels == 1, :, :4] += 100
        images[labels == 0, :, 4:] += 100
        head = np.array([0x803, *images.shape], ">i4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, count], ">i4").tobytes() + labels.tobytes())
    return folder


@dataclass
class Ran:
    """A search that a test ran."""

    results: list[TrialResult]
    stream: list[events.Event]
    path: Path
    trials: dict[int, TrialResult] = field(init=False)

    def __post_init__(self) -> None:
        self.trials = {result.number: result for result in self.results}

    @property
    def study(self) -> list[optuna.trial.FrozenTrial]:
        name = optuna.get_all_study_names(f"sqlite:///{self.path / 'study.db'}")[0]
        return optuna.load_study(study_name=name, storage=f"sqlite:///{self.path / 'study.db'}").trials

    def of(self, kind: type[events.Event]) -> list[events.Event]:
        return [event for event in self.stream if isinstance(event, kind)]


Then = Callable[[Search, list[TrialResult]], None]
RunTiny = Callable[..., Ran]


@pytest.fixture
def run_tiny(request: pytest.FixtureRequest, loads: Path, registry: Registry, tiny: Path, tmp_path: Path) -> RunTiny:
    """Run a search of the given TOML text (without its data table) on the tiny dataset.

    It runs in this process; with `executor=RAY_TUNE` by the warm Ray of this package, in tests of the tier `ray` alone.
    `stop_after` asks it to stop once so many epochs have been reported, however long the workers took to start.
    """
    return runner(request, registry, tiny, tmp_path)


@pytest.fixture(scope="module")
def run_tiny_once(
    request: pytest.FixtureRequest,
    loads: Path,
    registry: Registry,
    tiny: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> RunTiny:
    """As `run_tiny`, for one search that several tests of the tier `ray` look at."""
    return runner(request, registry, tiny, tmp_path_factory.mktemp("once"))


def runner(request: pytest.FixtureRequest, registry: Registry, tiny: Path, folder: Path) -> RunTiny:
    """Return what runs searches in a folder."""
    by_ray = request.scope == "module" or request.node.get_closest_marker("ray") is not None

    def run(
        text: str,
        *,
        executor: Executor = LOCAL,
        parallel: int = 1,
        stopping: Callable[[], bool] = lambda: False,
        stop_after: int | None = None,
        then: Then | None = None,
        dataset: str = "idx",
        goes_on: Ran | None = None,
        again: bool = False,
        plugins: Registry = registry,
    ) -> Ran:
        assert by_ray or executor is LOCAL, "a test that uses Ray is of the tier `ray`"
        assert parallel == 1 or executor is RAY_TUNE, "in this process one trial runs at a time"
        if executor is RAY_TUNE:
            request.getfixturevalue("ray_session")
        file = folder / "x.toml"
        file.write_text(f'name = "tiny"\n[data]\ndataset = "{dataset}"\nvalidation = 32\n' + text)
        wanted = loader.load(file, (), plugins)
        place = DataPlace(data_dir=tiny, cache=folder / "cache", offline=True)
        stream: list[events.Event] = []
        path = goes_on.path if goes_on else create_run(folder / "runs", "tiny", datetime.now(UTC))
        past = past_of(read_events(path), again=again) if goes_on else NOTHING
        store = RunWriter(path)
        if not goes_on:
            store.write_run({"run": path.name})

        def emit(event: events.Event) -> None:
            store.append(event)
            stream.append(event)

        def asked() -> bool:
            epochs = sum(isinstance(event, events.TrialEpoch) for event in stream)
            return stopping() or (stop_after is not None and epochs >= stop_after)

        portion = executor.portion(Share(cpus=1, gpus=0.0, parallel=parallel))
        larger = room(MACHINE, portion)
        shared = shared_of(
            find_data(wanted, place), place, portion, plugins.selection, wanted.spec.search, more_room=bool(larger)
        )
        search = Search(
            spec=wanted.spec,
            space=wanted.space,
            shared=replace(shared, checkpoint_seconds=0.0),  # each epoch's state is kept: what goes on needs it
            share=portion,
            room=larger,
            registry=plugins,
            store=store,
            emit=emit,
            stopping=asked,
            nodes=Nodes(executor.alive, say=lambda text: emit(events.Warned(message=text))),
            executor=executor,
        )
        joined = nullcontext() if executor is RAY_TUNE else executor.joined(None, MACHINE, "")
        try:
            there = read_run(path).trials if goes_on else ()
            results = [one for one in there if past.trials[one.trial].state]
            with joined, sealed():
                run_search(search, results, past)
                if then is not None:
                    then(search, results)
        finally:
            store.close()
        return Ran(results, stream, path)

    return run


def starts(ran: Ran, trial: str) -> list[events.TrialStarted]:
    return [event for event in ran.stream if isinstance(event, events.TrialStarted) and event.trial == trial]


def mood_of(ran: Ran, name: str) -> str:
    return next(one.trial for one in ran.results if one.plan["model"]["config"]["mood"] == name)
