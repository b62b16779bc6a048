"""What all contracts share: which plugin is meant, how its records become test ids, and what holds for any of them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any, cast, get_args

import pytest
import torch
from packaging.utils import canonicalize_name as canonical
from pydantic import ValidationError

from mnistlab.api import ENTRY_POINT_GROUP, Config, ImageShape, Portfolio, domains
from mnistlab.errors import near_miss
from mnistlab.experiment.points import normalized
from mnistlab.plugins import audit
from mnistlab.plugins.discovery import EVERYTHING, Found, discover
from mnistlab.plugins.registry import Kind, Offer, Plugin, Registry, load
from mnistlab.testing.points import default_point, missing_fields, points
from mnistlab.testing.traces import random_states, restore_random_states

SHAPES = (ImageShape(1, 28, 28, 10), ImageShape(3, 32, 32, 7), ImageShape(1, 8, 8, 10))
IMPORT_SECONDS = 120
IMPORT_CHECK = """
import importlib, random, sys
import numpy, torch
def states():
    return torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())
before = states()
module = importlib.import_module(sys.argv[1])
for name in ("mnistlab_models", "mnistlab_optimizers", "mnistlab_transforms", "mnistlab_datasets"):
    list(getattr(module, name, tuple)() or ())
if torch.cuda.is_initialized():
    sys.exit("it starts CUDA")
if states() != before:
    sys.exit("it draws from or seeds a global generator")
"""


@cache
def loaded(plugin: ModuleType | str) -> tuple[Plugin, ...]:
    """Load a plugin as the registry does: all entry points of a distribution, or one module.

    A distribution that offers no plugin is a plugin that failed, so that a test says so and not the collection.
    """
    everything = discover()
    if isinstance(plugin, ModuleType):
        named = [f for f in everything if f.module == plugin.__name__ and f.group == ENTRY_POINT_GROUP]
        name = plugin.__name__
        bare = Found(canonical(name), "0", name, name, ENTRY_POINT_GROUP, lambda: plugin, packaged=False)
        return load(named[:1] or [bare], EVERYTHING).plugins
    of_it = [found for found in everything if canonical(found.distribution) == canonical(plugin)]
    if of_it:
        return load(of_it, EVERYTHING).plugins
    nowhere = Found(plugin, "", "", "", ENTRY_POINT_GROUP, object, packaged=False)
    hint = near_miss(plugin, (found.distribution for found in everything))
    return (Plugin(nowhere, "failed", f"no installed distribution '{plugin}' offers plugins; {hint}"),)


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
        restore_random_states(states)

    def point(self, offer: Offer) -> Config:
        """Return the record's defaults; the test is skipped where a setting has to be given and `fixed` has none."""
        fixed = self.fixed.get(offer.name, {})
        try:
            return default_point(offer.record.config, fixed)
        except ValidationError as error:
            missing = missing_fields(error)
            if missing:
                pytest.skip(f"{offer.name} has no default for {', '.join(missing)}: give them in `fixed`")
            reason = refusal(offer.record.config, fixed, error)
        pytest.fail(f"the contract fixes {fixed!r} for {offer.name}, which its config refuses: {reason}")

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
        for plugin in filter(lambda one: one.found.module, loaded(self.plugin)):
            command = [sys.executable, "-c", IMPORT_CHECK, plugin.found.module]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=IMPORT_SECONDS
            )
            assert done.returncode == 0, f"importing {plugin.found.module} in a fresh process: {done.stderr[-2000:]}"

    def test_its_summary_is_a_sentence(self, record: Offer) -> None:
        """Say in one line what the record is."""
        assert record.record.summary.endswith("."), f"{record.name}: its summary must end with a full stop"

    def test_its_portfolio_lies_in_its_space(self, record: Offer) -> None:
        """Name only settings that the record has, with values that a search can propose; those of others are theirs."""
        allowed, own = domains(record.record.config), f"{record.kind}.{record.name}."
        plans: Portfolio = getattr(record.record, "portfolio", ())
        for place, plan in enumerate(plans, 1):
            for key in (key for key in plan if key.startswith(own)):
                name, where = key.removeprefix(own), f"plan {place} of the portfolio of {record.name}: {key}"
                assert name in allowed, f"{where} is searched nowhere; {near_miss(name, allowed)}"
                found = normalized(allowed[name], plan[key])
                assert found is not None, f"{where} = {plan[key]!r} is not in {allowed[name]}"

    def test_its_config_survives_json_and_pickling(self, record: Offer) -> None:
        """Send every point the way a plan travels."""
        for config in self.points(record):
            body = config.model_dump(mode="json")
            again = record.record.config.model_validate(json.loads(json.dumps(pickle.loads(pickle.dumps(body)))))  # noqa: S301
            assert again == config, f"{record.name}: {config!r} becomes {again!r} as JSON"


def refusal(config: type[Config], fixed: Mapping[str, Any], error: ValidationError) -> str:
    """Return what a config says against the fixed settings, with the nearest name for one that it does not have."""
    hints = [near_miss(name, config.model_fields) for name in fixed if name not in config.model_fields]
    reasons = [f"{'.'.join(map(str, details['loc']))}: {details['msg']}" for details in error.errors()]
    return "; ".join([*reasons, *hints])
