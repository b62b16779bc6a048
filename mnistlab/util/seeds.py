"""Seeds: every random stream of a run is derived from the run's seed, so that no two streams overlap by accident.

The derivation is numpy's SeedSequence (O'Neill's seed_seq), which maps nearby inputs to unrelated outputs.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a seed is for."""

    TRIAL = 1
    REPLICATE = 2
    SPLIT = 3
    SAMPLER = 4
    WEIGHTS = 5
    ORDER = 6
    TRANSFORMS = 7
    PREDICTION = 8
    REFIT = 9
    PART = 10


def derive(seed: int, stream: Stream, number: int = 0) -> int:
    """Return the seed (32 bits) of a stream's `number`-th member under `seed`."""
    return int(np.random.SeedSequence([seed, int(stream), number]).generate_state(1)[0])


def trial_seed(run_seed: int, number: int) -> int:
    """Return the seed of trial `number` (from 0)."""
    return derive(run_seed, Stream.TRIAL, number)


def split_seeds(run_seed: int, number: int = 0) -> tuple[int, int]:
    """Return the seeds of the split between training and validation images, and of the part of the former.

    0 is the run's own split, the others are those of replicates that draw one; it is the same for all plans.
    """
    return derive(run_seed, Stream.SPLIT, number), derive(run_seed, Stream.PART, number)


def replicate_seed(run_seed: int, number: int) -> int:
    """Return the seed of replicate `number` (from 1); the same for all plans, so that they can be compared in pairs."""
    return derive(run_seed, Stream.REPLICATE, number)
