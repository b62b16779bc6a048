"""What is said of a search whose algorithm can't do what its name says, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from mnistlab.experiment import loader
from mnistlab.experiment.algorithms import (
    FEWEST,
    LEARNING,
    Known,
    batch,
    held_back,
    population,
    proposals,
    trials_at_once,
)
from mnistlab.experiment.spec import Algorithm, SearchSpec
from mnistlab.plugins.registry import Registry
from tests.simulated.memory import BRANCHES, LISTS, NUMBERS


def search(**settings: object) -> SearchSpec:
    return SearchSpec.model_validate(settings)


def warned(folder: Path, registry: Registry, space: str, table: str) -> tuple[str, ...]:
    (folder / "x.toml").write_text(f'name = "x"\n[data]\ndataset = "digits"\n{space}[search]\n{table}\n')
    return loader.load(folder / "x.toml", (), registry).warnings


@pytest.mark.parametrize("trials", [1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 1_000, 1_000_000])
def test_at_most_a_quarter_of_the_trials_runs_at_once_while_an_algorithm_learns(trials: int) -> None:
    for algorithm in LEARNING:
        at_once = trials_at_once(search(trials=trials, algorithm=algorithm))
        assert at_once == max(2, trials // 4)
        if trials >= 16:  # half of the plans are proposed after the random start has ended
            assert at_once + batch(trials, 10) <= trials / 2
    for algorithm in ("random", "grid", "qmc"):
        assert trials_at_once(search(trials=trials, algorithm=algorithm)) is None
    assert trials_at_once(search(trials=trials, algorithm="random", scheduler="pbt")) is None


def test_every_algorithm_is_known_to_learn_or_not_to() -> None:
    assert set(get_args(Algorithm)) - LEARNING == {"random", "grid", "qmc"}
    assert (population(1), population(5), population(0)) == (4, 8, 4)


@pytest.mark.parametrize(
    ("trials", "algorithm", "fit", "at_once", "said"),
    [
        (32, "tpe", 32, 8, "8 trials at once instead of 32: tpe learns from trials that ended; set resources.max_p"),
        (32, "gp", 26, 8, "8 trials at once instead of 26: gp learns"),
        (8, "cmaes", 3, 2, "2 trials at once instead of 3: cmaes learns"),
        (32, "tpe", 8, 8, ""),
        (32, "tpe", 4, 4, ""),
        (32, "tpe", 16, 16, ""),  # by max_parallel: the user knows
        (32, "tpe", 32, 32, "32 of 32 trials at once: tpe proposes every plan before enough trials ended to learn"),
        (32, "nsga2", 26, 26, "set resources.max_parallel = 8"),
        (5, "tpe", 2, 2, "set resources.max_parallel = 1"),
        (32, "random", 64, 32, ""),
        (32, "qmc", 64, 64, ""),
        (FEWEST, "tpe", 64, 2, ""),  # the warning below says it all
    ],
)
def test_a_search_says_how_its_workers_and_its_learning_limit_each_other(
    trials: int, algorithm: str, fit: int, at_once: int, said: str
) -> None:
    told = held_back(search(trials=trials, algorithm=algorithm), fit, at_once)
    assert told == said or (said and said in told)


def test_cma_es_is_warned_of_with_what_it_does_not_learn(tmp_path: Path, builtins: Registry) -> None:
    table = 'algorithm = "cmaes"'
    assert warned(tmp_path, builtins, NUMBERS, table) == ()
    (mixed,) = warned(tmp_path, builtins, BRANCHES, table)
    assert "draws all else at random: model, model.lenet.activation; 'tpe' learns all of them" in mixed
    (nothing,) = warned(tmp_path, builtins, LISTS, table)
    assert "this space has none: every plan is proposed at random; use 'tpe', or write ranges" in nothing
    for algorithm in ("tpe", "gp", "nsga2", "random", "qmc"):
        assert warned(tmp_path, builtins, BRANCHES, f'algorithm = "{algorithm}"') == ()


@pytest.mark.parametrize("algorithm", sorted(LEARNING))
def test_too_few_trials_to_learn_from_are_warned_of(tmp_path: Path, builtins: Registry, algorithm: str) -> None:
    (said,) = warned(tmp_path, builtins, NUMBERS, f'algorithm = "{algorithm}"\ntrials = {FEWEST}')
    assert said.startswith(f"search.trials = 4: {algorithm} learns from at least 4 trials")
    assert "algorithm = 'random'" in said
    assert warned(tmp_path, builtins, NUMBERS, f'algorithm = "{algorithm}"\ntrials = {FEWEST + 1}') == ()
    assert warned(tmp_path, builtins, NUMBERS, f'algorithm = "random"\ntrials = {FEWEST}') == ()


@pytest.mark.parametrize(
    ("asked", "settings", "known", "at_once", "said"),
    [
        (
            "auto",
            {},
            {"plans": 3},
            2,
            "auto: up to 3 known plans while they do well, then TPE beside plans near the defaults (24 trials, 4 ",
        ),
        ("auto", {}, {}, 6, "auto: the plan of all defaults first, then TPE beside plans near the defaults (24 trials"),
        (
            "auto",
            {},
            {"plans": 3, "earlier": 2, "results": 9},
            2,
            "3 known plans while they do well, 2 of them of earlier runs, then ",
        ),
        ("auto", {}, {"results": 9}, 24, "TPE beside plans near the defaults, from 9 results of earlier runs on"),
        (
            "auto",
            {},
            {},
            20,
            "then plans at random or near the defaults, because too few trials end before the last one",
        ),
        ("auto", {"trials": 4}, {}, 1, "then plans at random or near the defaults, because too few trials end"),
        (
            "auto",
            {"trials": 1},
            {"plans": 2},
            1,
            "auto: the plan of all defaults first (1 trial, 4 settings, 1 at once)",
        ),
        (
            "auto",
            {"algorithm": "random", "scheduler": "pbt"},
            {},
            2,
            "then plans at random, because a population changes",
        ),
        (
            "auto",
            {"algorithm": "tpe", "metric": ["val_loss", "seconds"], "scheduler": "none"},
            {},
            2,
            "TPE, because there are 2",
        ),
        (
            "tpe",
            {"algorithm": "tpe"},
            {},
            24,
            "tpe: the plan of all defaults first, then plans at random, because too few",
        ),
        ("gp", {"algorithm": "gp"}, {}, 2, "then a Gaussian process (24"),
        ("random", {"algorithm": "random"}, {}, 24, "then plans at random (24 trials"),
    ],
)
def test_a_search_says_who_proposes_its_plans_and_why(
    tmp_path: Path, builtins: Registry, asked: Algorithm, settings: dict, known: dict, at_once: int, said: str
) -> None:
    (tmp_path / "x.toml").write_text(f'name = "x"\n[data]\ndataset = "digits"\n{NUMBERS}')
    space = loader.load(tmp_path / "x.toml", (), builtins).space
    told = proposals(asked, search(**{"algorithm": "auto", "trials": 24} | settings), space, Known(**known), at_once)
    assert said in told


def test_a_space_with_no_more_plans_than_trials_is_tried_whole(tmp_path: Path, builtins: Registry) -> None:
    (tmp_path / "x.toml").write_text(f'name = "x"\n[data]\ndataset = "digits"\n{LISTS}')
    wanted = loader.load(tmp_path / "x.toml", ("search.trials=10000",), builtins)
    told = loader.proposals_of(wanted, 99, 2)
    assert told.startswith("auto: the plan of all defaults first, then every other plan, because the space has no more")


def test_what_auto_stands_for_is_known_beside_what_was_asked(tmp_path: Path, builtins: Registry) -> None:
    (tmp_path / "x.toml").write_text(f'name = "x"\n[data]\ndataset = "digits"\n{NUMBERS}')
    wanted = loader.load(tmp_path / "x.toml", ("search.scheduler=pbt",), builtins)
    assert (wanted.asked, wanted.spec.search.algorithm) == ("auto", "random")
