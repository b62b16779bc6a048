"""What all contracts share: which plugin is meant, how its records become test ids, and what holds for any of them."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mnistlab import audit
from mnistlab.api import ENTRY_POINT_GROUP, Config, ImageShape
from mnistlab.discovery import EVERYTHING, Found, canonical, discover
from mnistlab.registry import Kind, Offer, Plugin, Registry, load
from mnistlab.testing.points import default_point, points

SHAPES = (ImageShape(1, 28, 28, 10), ImageShape(3, 32, 32, 7), ImageShape(1, 8, 8, 10))
IMPORT_CHECK = """
import importlib, random, sys
import numpy, torch
before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
importlib.import_module(sys.argv[1])
if torch.cuda.is_initialized():
    sys.exit("it starts CUDA")
after = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
if not torch.equal(before[0], after[0]) or before[1:] != after[1:]:
    sys.exit("it draws from or seeds a global generator")
"""


@cache
def loaded(plugin: ModuleType | str) -> tuple[Plugin, ...]:
    """Load a plugin as the registry does: all entry points of a distribution, or one module.

    Raises:
        LookupError: if no installed distribution of that name offers plugins.
    """
    if isinstance(plugin, ModuleType):
        named = [found for found in discover() if found.module == plugin.__name__ and found.group == ENTRY_POINT_GROUP]
        name = plugin.__name__
        bare = Found(canonical(name), "0", name, name, ENTRY_POINT_GROUP, lambda: plugin, packaged=False)
        return load(named[:1] or [bare], EVERYTHING).plugins
    of_it = [found for found in discover() if canonical(found.distribution) == canonical(plugin)]
    if not of_it:
        raise LookupError(f"no installed distribution '{plugin}' offers plugins")
    return load(of_it, EVERYTHING).plugins


class Contract:
    """Base of all contracts. An inheriting class names its `plugin` and may limit what is tried."""

    plugin: ModuleType | str
    """A module that implements hooks, or the name of an installed distribution."""
    shapes: Sequence[ImageShape] = SHAPES
    """The images that every model and transform must cope with."""
    names: Collection[str] | None = None
    """Only these records; None: all."""
    samples: int = 8
    """How many random points of each space are tried beside its corners."""
    fixed: Mapping[str, Mapping[str, Any]] = {}
    """Settings of records that stay as they are at all points, for example a small architecture."""
    deterministic: Collection[str] = ()
    """Transforms that draw nothing at random."""

    def offers(self, kind: Kind | None = None) -> list[Offer]:
        """Return what the plugin offers, as far as `names` lets it through."""
        found = [offer for plugin in loaded(self.plugin) for offer in plugin.offers if kind in (None, offer.kind)]
        return [offer for offer in found if self.names is None or offer.name in self.names]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make each record a test id: a test that takes `model` runs once for each model."""
        for kind in cast("tuple[Kind, ...]", get_args(Kind)):
            if kind in metafunc.fixturenames:
                metafunc.parametrize(kind, [pytest.param(offer, id=offer.name) for offer in self.offers(kind)])
        if "record" in metafunc.fixturenames:
            ids = [pytest.param(offer, id=f"{offer.kind}-{offer.name}") for offer in self.offers()]
            metafunc.parametrize("record", ids)

    @pytest.fixture(autouse=True)
    def _one_thread_and_no_trace(self) -> Generator[None]:
        """Run on one thread, from the same random state, and leave both as they were."""
        threads, states = torch.get_num_threads(), random_states()
        torch.set_num_threads(1)
        torch.manual_seed(0)
        yield
        torch.set_num_threads(threads)
        torch.set_rng_state(torch.from_numpy(np.frombuffer(states[0], np.uint8).copy()))

    def point(self, offer: Offer) -> Config:
        """Return the record's defaults; the test is skipped where a setting has to be given and `fixed` has none."""
        try:
            return default_point(offer.record.config, self.fixed.get(offer.name, {}))
        except ValidationError as error:
            missing = ", ".join(".".join(map(str, details["loc"])) for details in error.errors())
            pytest.skip(f"{offer.name} has no default for {missing}: give them in `fixed`")

    def points(self, offer: Offer) -> Iterator[Config]:
        """Yield the points of the record's space that are tried."""
        self.point(offer)
        yield from points(offer.record.config, self.fixed.get(offer.name, {}), self.samples)

    def test_it_loads(self) -> None:
        """Load it alone, as the registry does."""
        broken = [f"{plugin.title}: {plugin.reason}" for plugin in loaded(self.plugin) if plugin.status != "ok"]
        assert not broken, "the registry refuses it: " + "; ".join(broken)

    def test_what_it_offers_is_there(self) -> None:
        """Find every record that `names`, `fixed` and `deterministic` speak of."""
        offered = {offer.name for plugin in loaded(self.plugin) for offer in plugin.offers}
        spoken = {*(self.names or ()), *self.fixed, *self.deterministic}
        assert spoken <= offered, f"the contract names {sorted(spoken - offered)}, which the plugin does not offer"

    def test_its_metadata_are_sound(self) -> None:
        """Require mnistlab below its next major version, and name a licence."""
        plugins = loaded(self.plugin)
        doubts = [doubt for plugin in plugins for doubt in audit.doubts(plugin, Registry(plugins))]
        assert not doubts, "; ".join(doubts)

    def test_importing_it_has_no_side_effects(self) -> None:
        """Import it in a fresh process: a worker without a GPU must not wake one, and no seed may be spent."""
        for plugin in loaded(self.plugin):
            command = [sys.executable, "-c", IMPORT_CHECK, plugin.found.module]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"importing {plugin.found.module} in a fresh process: {done.stderr[-2000:]}"

    def test_its_summary_is_a_sentence(self, record: Offer) -> None:
        """Say in one line what the record is."""
        assert record.record.summary.endswith("."), f"{record.name}: its summary must end with a full stop"

    def test_its_config_survives_json_and_pickling(self, record: Offer) -> None:
        """Send every point the way a plan travels."""
        for config in self.points(record):
            body = config.model_dump(mode="json")
            again = record.record.config.model_validate(json.loads(json.dumps(pickle.loads(pickle.dumps(body)))))  # noqa: S301
            assert again == config, f"{record.name}: {config!r} becomes {again!r} as JSON"


def random_states() -> tuple[bytes, object, bytes]:
    """Return the state of every global generator that a plugin might disturb: torch, random, numpy."""
    numpy_state = cast("tuple[Any, ...]", np.random.get_state())  # noqa: NPY002, RUF100 - the global one is meant
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        numpy_state[1].tobytes() + bytes([numpy_state[2] % 256]),
    )


@contextmanager
def undisturbed(what: str) -> Generator[None]:
    """Fail if a global random generator has another state at the end."""
    before = random_states()
    yield
    for name, old, new in zip(("torch", "random", "numpy"), before, random_states(), strict=True):
        assert old == new, f"{what} draws from or seeds the global generator of {name}"
