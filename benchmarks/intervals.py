"""How often equal plans are told apart by their losses: intervals over seeds only, and over seeds and images.

Small models are trained on a few MNIST images with several seeds, and their losses are taken on 20,000 others. From
these losses, less the difference of their means, as many equal pairs of plans as wanted can be drawn: seeds and images
with replacement, the same for both. Each interval should lack 0 in at most 5 % of them. A second table does the same
with made-up losses that have heavy tails.

Usage: MNISTLAB_DATA=FOLDER python benchmarks/intervals.py [SEEDS] [RANKINGS]
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import table
from plans import mnist, part

from mnistlab.experiment.space import TrainingConfig
from mnistlab.leaderboard.statistics import paired_difference, paired_mean_difference
from mnistlab.plugins.registry import installed
from mnistlab.training import loop
from mnistlab.util.seeds import trial_seed

TRAINED_ON, POOL, EPOCHS = 2_000, 20_000, 6
MODELS = {
    "mlp": part("model", "mlp"),
    "mlp width=64": part("model", "mlp", width=64),
    "lenet": part("model", "lenet"),
}

Losses = npt.NDArray[np.floating[Any]]  # (seeds, images)
Draw = Callable[[np.random.Generator, int, int], tuple[Losses, Losses]]  # (generator, seeds, images) -> two plans


def losses(model: dict[str, Any], seeds: int) -> Losses:
    """Train a model on the first images with each seed; return its losses on the images of the pool."""
    data = mnist(validation=POOL)
    data = replace(data, train_images=data.train_images[:TRAINED_ON], train_labels=data.train_labels[:TRAINED_ON])
    config = {**TrainingConfig().model_dump(), "epochs": EPOCHS}
    plan = {"model": model, "optimizer": part("optimizer", "adamw"), "transforms": [], "training": config}
    rows: list[Losses] = []
    for number in range(seeds):
        done = loop.begin(plan, trial_seed(0, number), data, installed())
        while done.epoch < done.epochs:
            loop._train_epoch(done)
            done.history.append({})
        found = loop.evaluate(done, data.validation_images, data.validation_labels)
        rows.append(found.per_image["loss"].numpy())
    return np.stack(rows)


def drawn_from(a: Losses, b: Losses) -> Draw:
    """Return what draws seeds and images of two plans whose losses are made equal on average."""
    level = b + (a.mean() - b.mean())

    def draw(rng: np.random.Generator, seeds: int, images: int) -> tuple[Losses, Losses]:
        rows, columns = rng.integers(len(a), size=seeds), rng.integers(a.shape[1], size=images)
        return a[np.ix_(rows, columns)], level[np.ix_(rows, columns)]

    return draw


def told_apart(draw: Draw, seeds: int, images: int, rankings: int) -> tuple[str, str]:
    """Return the share of equal pairs that are told apart, over seeds only and over seeds and images."""
    rng, only_seeds, both = np.random.default_rng([seeds, images]), 0, 0
    for _ in range(rankings):
        a, b = draw(rng, seeds, images)
        only_seeds += not paired_mean_difference(list(a.mean(axis=1)), list(b.mean(axis=1))).tied
        both += not paired_difference(a, b).tied
    return f"{100 * only_seeds / rankings:.1f}", f"{100 * both / rankings:.1f}"


def deviations(a: Losses, b: Losses) -> str:
    """Return the deviations of a - b between seeds, between images and of what is left, by the mean squares."""
    gain = a - b
    rows, columns = gain.mean(axis=1, keepdims=True), gain.mean(axis=0)
    rest = ((gain - rows - columns + gain.mean()) ** 2).sum() / ((len(gain) - 1) * (gain.shape[1] - 1))
    by_seed, by_image = rows.var(ddof=1) - rest / gain.shape[1], columns.var(ddof=1) - rest / len(gain)
    return " / ".join(f"{max(variance, 0) ** 0.5:.4f}" for variance in (by_seed, by_image, rest))


def trained(seeds: int, rankings: int) -> Iterator[tuple[str, ...]]:
    known = {name: losses(model, seeds) for name, model in MODELS.items()}
    for (first, a), (second, b) in itertools.combinations(known.items(), 2):
        name = f"{first}, {second} (loss {a.mean():.3f}, {b.mean():.3f}; greatest {max(a.max(), b.max()):.0f})"
        for count, images in itertools.product((3, 5), (2_000, 10_000)):
            shares = told_apart(drawn_from(a, b), count, images, rankings)
            yield name, deviations(a, b), str(count), f"{images:,}", *shares


# --- heavy tails --------------------------------------------------------------------------------------------------


def made_up(of_images: Callable[[np.random.Generator, int], Losses]) -> Draw:
    """Return what draws two equal plans, whose losses differ by `of_images` (mean 0) on images, and a bit by seeds."""

    def draw(rng: np.random.Generator, seeds: int, images: int) -> tuple[Losses, Losses]:
        own = of_images(rng, images)
        sides = [rng.normal(0, 0.002, (seeds, 1)) + rng.normal(0, 0.05, (seeds, images)) for _ in range(2)]
        return sides[0] + own, sides[1]

    return draw


def rare(share: float) -> Callable[[np.random.Generator, int], Losses]:
    """Return differences that are 5 nats on a share of the images and a little the other way on all others."""
    return lambda rng, images: 5.0 * ((rng.random(images) < share) - share)


TAILS: dict[str, Callable[[np.random.Generator, int], Losses]] = {
    "normal, sd 0.1": lambda rng, images: rng.normal(0, 0.1, images),
    "Student's t, 3 degrees": lambda rng, images: 0.1 * rng.standard_t(3, images),
    "Student's t, 2 degrees": lambda rng, images: 0.1 * rng.standard_t(2, images),
    "log-normal, sigma 1": lambda rng, images: 0.1 * (rng.lognormal(0, 1, images) - np.exp(0.5)),
    "log-normal, sigma 2": lambda rng, images: 0.01 * (rng.lognormal(0, 2, images) - np.exp(2)),
    "5 nats on 1 of 100, one plan's": rare(0.01),
    "5 nats on 1 of 1,000, one plan's": rare(0.001),
    "5 nats on 1 of 5,000, one plan's": rare(0.0002),
}


def heavy(rankings: int) -> Iterator[tuple[str, ...]]:
    for name, of_images in TAILS.items():
        for seeds, images in ((3, 10_000), (5, 10_000), (5, 1_000)):
            yield name, str(seeds), f"{images:,}", *told_apart(made_up(of_images), seeds, images, rankings)


def main(seeds: int = 12, rankings: int = 1_000) -> None:
    loop.set_up_process(1)
    found = ("told apart over seeds only, %", "over seeds and images, % (wanted <= 5)")
    head = ("plans", "sd of the difference: seeds / images / rest", "seeds", "images", *found)
    title = f"Equal plans by val_loss, from {seeds} trainings each on {TRAINED_ON:,} images of MNIST (n={rankings})"
    print(table(title, head, trained(seeds, rankings)))
    print(
        table(f"Equal plans, heavy tails (n={rankings})", ("differences", "seeds", "images", *found), heavy(rankings))
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
