"""The search algorithms by name: which of Optuna's samplers, with which settings, and what it sees of a study.

Three of Optuna's samplers (5.0) learn only from trials that are COMPLETE, which a scheduler leaves few of, and only
about settings that every one of these trials has, which leaves out all settings of models that the search chooses
between. Here they see each trial that ended, by its score, with a value for every setting of the space.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, nsgaii
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnistlab.experiment.algorithms import batch, population
from mnistlab.experiment.spec import Algorithm
from mnistlab.tuning.guided import Guided
from mnistlab.tuning.scores import scores


@dataclass(frozen=True)
class Settings:
    """Every setting of a space as Optuna has it, those of all branches together, with the default of each."""

    distributions: Mapping[str, BaseDistribution]
    defaults: Mapping[str, Any]

    @property
    def searched(self) -> dict[str, BaseDistribution]:
        """Return the settings that have more than one value."""
        return {name: one for name, one in self.distributions.items() if not one.single()}

    @property
    def numbers(self) -> int:
        """Return how many of those are ranges of numbers."""
        return sum(not isinstance(one, CategoricalDistribution) for one in self.searched.values())


@dataclass(frozen=True)
class About:
    """What a sampler is to know of a search: its space, its trials, and whether these are trained at rungs.

    `known` are the plans that a search looks at early, as Optuna has them. `earlier` are trials of earlier runs, each
    with its share among those of its own run.
    """

    settings: Settings
    trials: int
    rungs: bool
    known: tuple[Mapping[str, Any], ...] = ()
    earlier: tuple[FrozenTrial, ...] = ()


def has_ended(trial: FrozenTrial, *, rungs: bool) -> bool:
    """Return whether a trial has ended or, with `rungs`, a training of it at one of them."""
    return trial.state.is_finished() or (rungs and bool(trial.intermediate_values))


class WholeSpace(BaseSampler):
    """Asks a sampler for all settings of a space at once, whatever branches it has: those that are inactive go unused.

    Optuna's sampler would take the settings of the first trial, or those that all trials share, for the whole space.
    """

    def __init__(self, inner: BaseSampler, settings: Settings) -> None:
        """Ask `inner`, which also draws what it does not propose."""
        self._inner, self._settings = inner, settings

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """Return the whole space."""
        return self._settings.searched

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return what the sampler proposes."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a setting that was not proposed, at random."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Reseed the sampler."""
        self._inner.reseed_rng()


class EveryTrial(WholeSpace):
    """Shows a sampler all trials that ended, with scores that compare, in a study that only the sampler sees.

    The run's own study keeps what happened: a pruned trial is PRUNED there. What the sampler notes of its own trials
    (generations, the state of CMA-ES) is kept here, so that nothing of it is ever read from a file.
    """

    def __init__(
        self,
        inner: BaseSampler,
        settings: Settings,
        *,
        rungs: bool,
        filled: bool = True,
        earlier: Sequence[FrozenTrial] = (),
    ) -> None:
        """Show trials to `inner`; `filled`, with a value for every setting, else with those that were tried.

        With `rungs` a trial that goes on says already what it has come to at its last rung. Trials of `earlier` runs
        come before all others.
        """
        super().__init__(inner, settings)
        self._rungs, self._filled, self._earlier = rungs, filled, earlier
        self._proposed: dict[int, dict[str, Any]] = {}
        self._notes: dict[int, dict[str, Any]] = {}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],  # noqa: ARG002 - the sampler reads it off the trials
    ) -> dict[str, Any]:
        """Return what the sampler proposes after all trials but this one; {} while it has seen too few."""
        seen = optuna.create_study(sampler=self._inner, directions=study.directions)
        seen.add_trials([*self._earlier, *self._seen(study, trial.number)])
        asked = seen.ask()
        self._proposed[trial.number] = dict(asked.relative_params)
        self._notes[trial.number] = dict(seen.get_trials(deepcopy=False)[-1].system_attrs)
        return self._proposed[trial.number]

    def _seen(self, study: optuna.Study, asked: int) -> Iterator[FrozenTrial]:
        trials = [one for one in study.get_trials(deepcopy=False) if one.number != asked]
        found = scores([one for one in trials if has_ended(one, rungs=self._rungs)], study.directions)
        for one in trials:
            if one.number in found or one.state == TrialState.RUNNING:
                yield create_trial(
                    state=TrialState.COMPLETE if one.number in found else TrialState.RUNNING,
                    values=found.get(one.number),
                    params=self._complete(one) if self._filled else one.params,
                    distributions=dict(self._settings.distributions) if self._filled else one.distributions,
                    system_attrs=self._notes.get(one.number, {}),
                )

    def _complete(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return a value for every setting: what was tried; of inactive ones what was proposed, else the default."""
        known = {**self._settings.defaults, **self._proposed.get(trial.number, {}), **trial.params}
        return {name: known[name] for name in self._settings.distributions}


def _tpe(seed: int, about: About) -> BaseSampler:
    """Multivariate, grouped by branch of the space, told of running trials (Bergstra 2011; Falkner 2018)."""
    inner = optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, seed=seed, n_startup_trials=batch(about.trials, 10)
    )
    if not (about.rungs or about.earlier):
        return inner
    return EveryTrial(inner, about.settings, rungs=about.rungs, filled=False, earlier=about.earlier)


def _auto(seed: int, about: About) -> BaseSampler:
    """TPE, and known plans and plans near the defaults as long as they do well."""
    settings = about.settings
    near = {name: value for name, value in settings.defaults.items() if name not in {"model", "optimizer"}}
    ended = partial(has_ended, rungs=about.rungs)
    return Guided(_tpe(seed, about), settings.searched, near, seed, ended, about.known)


def _random(seed: int, _: About) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _qmc(seed: int, about: About) -> BaseSampler:
    inner = optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
    return WholeSpace(inner, about.settings)


def _gp(seed: int, about: About) -> BaseSampler:
    first = batch(about.trials, 10)
    inner = optuna.samplers.GPSampler(seed=seed, n_startup_trials=first, warn_independent_sampling=False)
    return EveryTrial(inner, about.settings, rungs=about.rungs)


def _cmaes(seed: int, about: About) -> BaseSampler:
    size = batch(about.trials, population(about.settings.numbers))
    inner = optuna.samplers.CmaEsSampler(seed=seed, popsize=size, warn_independent_sampling=False)
    return EveryTrial(inner, about.settings, rungs=about.rungs)


def _nsga2(seed: int, about: About) -> BaseSampler:
    """Crossover and mutation as in the paper (Deb 2002), which make new numbers near those that did well.

    Optuna's own choice swaps values and draws those that mutate at random: with one setting it never learns.
    """
    inner = optuna.samplers.NSGAIISampler(
        seed=seed,
        population_size=batch(about.trials, 50),
        crossover=nsgaii.SBXCrossover(),
        mutation=nsgaii.PolynomialMutation(),
        mutation_prob=1 / max(2, len(about.settings.searched)),
    )
    return EveryTrial(inner, about.settings, rungs=about.rungs)


_SAMPLERS: dict[Algorithm, Callable[[int, About], BaseSampler]] = {
    "auto": _auto,
    "tpe": _tpe,
    "random": _random,
    "grid": _random,  # the bridge hands it the points of the grid
    "qmc": _qmc,
    "cmaes": _cmaes,
    "gp": _gp,
    "nsga2": _nsga2,
}


def sampler(algorithm: Algorithm, seed: int, about: About) -> BaseSampler:
    """Return the sampler for `algorithm`, its random state set by `seed`, sized for a search."""
    with warnings.catch_warnings():
        # multivariate, group and GP are marked experimental; using them is a decision, not an accident.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _SAMPLERS[algorithm](seed, about)
