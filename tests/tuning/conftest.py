"""One Ray for all tests of the search, with a plugin that fails on request, and a tiny dataset that can be learnt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import optuna
import pytest

from mnistlab import events, experiment
from mnistlab.api import DataPlace
from mnistlab.dataset import find_data
from mnistlab.discovery import Selection, discover
from mnistlab.registry import Registry, load
from mnistlab.results import TrialResult
from mnistlab.run import shared_of
from mnistlab.store import RunWriter, create_run, read_events, read_run
from mnistlab.tuning.cluster import cluster
from mnistlab.tuning.driver import run_search
from mnistlab.tuning.job import Search
from mnistlab.tuning.machine import Machine, Share, room
from mnistlab.tuning.past import NOTHING, past_of
from tests.conftest import PACKAGES

DISTS = Path(__file__).parent / "dists"


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
    """One Ray for this package's tests; it ends with them, because other packages' tests start their own."""
    with ExitStack() as stack:
        with moody_on_the_path():  # Ray's workers inherit what is set when it starts
            stack.enter_context(cluster(None, Machine(cpus=2, gpus=0)))
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
def run_tiny(ray_session: None, registry: Registry, tiny: Path, tmp_path: Path) -> RunTiny:
    """Run a search of the given TOML text (without its data table) on the tiny dataset.

    `stop_after` asks it to stop once so many epochs have been reported, however long the workers took to start.
    """

    def run(
        text: str,
        *,
        parallel: int = 1,
        stopping: Callable[[], bool] = lambda: False,
        stop_after: int | None = None,
        then: Then | None = None,
        dataset: str = "idx",
        goes_on: Ran | None = None,
        again: bool = False,
    ) -> Ran:
        file = tmp_path / "x.toml"
        file.write_text(f'name = "tiny"\n[data]\ndataset = "{dataset}"\nvalidation = 32\n' + text)
        wanted = experiment.load(file, (), registry)
        place = DataPlace(data_dir=tiny, cache=tmp_path / "cache", offline=True)
        stream: list[events.Event] = []
        path = goes_on.path if goes_on else create_run(tmp_path / "runs", "tiny", datetime.now(UTC))
        past = past_of(read_events(path), again=again) if goes_on else NOTHING
        store = RunWriter(path)
        if not goes_on:
            store.write_run({"run": path.name})

        def emit(event: events.Event) -> None:
            store.append(event)
            stream.append(event)

        found = find_data(wanted, place)

        def asked() -> bool:
            epochs = sum(isinstance(event, events.TrialEpoch) for event in stream)
            return stopping() or (stop_after is not None and epochs >= stop_after)

        portion = Share(cpus=1, gpus=0.0, parallel=parallel)
        larger = room(Machine(cpus=2, gpus=0), portion)
        search = Search(
            spec=wanted.spec,
            space=wanted.space,
            # Every epoch's state is kept, so that what goes on does not begin anew.
            shared=replace(
                shared_of(found, place, portion, registry.selection, wanted.spec.search, more_room=larger is not None),
                checkpoint_seconds=0.0,
            ),
            share=portion,
            room=larger,
            registry=registry,
            store=store,
            emit=emit,
            stopping=asked,
        )
        try:
            there = read_run(path).trials if goes_on else ()
            results = [one for one in there if past.trials[one.trial].state]
            run_search(search, results, past)
            if then is not None:
                then(search, results)
        finally:
            store.close()
        return Ran(results, stream, path)

    return run
