"""Values of metrics for each validation image: kept, read only when asked for, and what comparisons make of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from mnistlab.console.dashboard.tables import mean_text
from mnistlab.console.ranking import notes
from mnistlab.errors import DamagedError, RunDirectoryError
from mnistlab.leaderboard import Leaderboard, rank
from mnistlab.leaderboard.compare import compare
from mnistlab.leaderboard.prose.verdict import verdict
from mnistlab.leaderboard.racing import beaten, difference, images_of, outcomes
from mnistlab.report.tables import csv_text, section
from mnistlab.store import RunWriter, create_run, pack_per_image, per_image, read_run
from mnistlab.store.results import ReplicateResult, RunRecord
from tests.leaderboard.test_compare import run
from tests.leaderboard.test_ranking import by_image, record, replicates, trial

pytestmark = pytest.mark.simulated

IMAGES = 400
LOSSES = np.random.default_rng(1).exponential(size=IMAGES)


# --- the file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with two confirmed plans of three seeds each, whose values for each image are kept."""
    path = create_run(tmp_path, "kept", datetime(2026, 11, 29, tzinfo=UTC))
    writer = RunWriter(path)
    about = {"metric": "val_loss", "metrics": ["val_loss"], "dataset": {"name": "made-up"}}
    writer.write_run({"run": path.name, **about})
    for number in (1, 2):
        writer.write_trial(trial(number))
        for one in replicates(number, 0.9 + 0.04 * number, seeds=3):
            data, known = pack_per_image({"val_loss": LOSSES * one.metrics["val_loss"] * (1 + 0.01 * one.replicate)})
            writer.write_replicate(replace(one, replicate=one.replicate + 1, per_image=known), b"weights", data)
    writer.close()
    return path


def file_of(folder: Path, trial: str = "0001", number: int = 1) -> Path:
    return folder / "trials" / trial / "replicates" / str(number) / "per_image.safetensors"


def test_what_was_written_is_read_again(folder: Path):
    ones = [one for one in read_run(folder).replicates if one.trial == "0001"]
    found = outcomes(ones, "val_loss")
    assert (found.shape, found.dtype) == ((3, IMAGES), np.float32)
    assert found[0] == pytest.approx(LOSSES * 0.06, rel=1e-6)
    about = ones[0].per_image
    assert about
    assert about.sd["val_loss"] == pytest.approx(float(LOSSES.std()) * 0.06, rel=1e-5)
    assert about.sha256 == hashlib.sha256(file_of(folder).read_bytes()).hexdigest()
    assert file_of(folder).stat().st_size < 4 * IMAGES + 100


def test_listing_a_run_reads_none_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("a file of values was read")

    monkeypatch.setattr(per_image, "_read", refuse)
    read = read_run(folder)
    csv_text([section(rank(replace(read, run={**read.run, "metric": "val_accuracy"})))])
    with pytest.raises(AssertionError, match="was read"):
        rank(read)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"others", "its sha256 is not the one in result.json"),
        (save({"val_loss": np.zeros(3, np.float32)}), "its sha256 is not"),
    ],
)
def test_a_file_that_is_another_is_refused_where_it_is_needed(folder: Path, content: bytes, why: str):
    file_of(folder).write_bytes(content)
    with pytest.raises(DamagedError, match=why) as refused:
        rank(read_run(folder))
    assert str(file_of(folder)) in str(refused.value)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"val_loss": np.zeros(3, np.float32)}, "does not hold 400 finite float32 values of val_loss"),
        ({"val_loss": np.zeros(IMAGES)}, "does not hold"),
        ({"val_loss": np.full(IMAGES, np.nan, np.float32)}, "does not hold"),
        ({"val_doubt": np.zeros(IMAGES, np.float32)}, "does not hold"),
        (None, "can't be read as tensors"),
    ],
)
def test_a_file_whose_sha256_fits_is_not_trusted_for_that(folder: Path, values: dict[str, Any] | None, why: str):
    data = save(values) if values else b"no tensors"
    file_of(folder).write_bytes(data)
    ones = [one for one in read_run(folder).replicates if one.trial == "0001"]
    about = ones[0].per_image
    assert about
    made_up = replace(ones[0], per_image=replace(about, sha256=hashlib.sha256(data).hexdigest(), read=None))
    with pytest.raises(DamagedError, match=why):
        outcomes([per_image.with_per_image(made_up, file_of(folder).parent)], "val_loss")


def test_a_file_that_is_gone_narrows_the_claim_and_one_that_goes_meanwhile_is_named(folder: Path):
    read = read_run(folder)
    file_of(folder).unlink()
    with pytest.raises(RunDirectoryError, match=r"can't read .*per_image\.safetensors: No such file"):
        rank(read)
    assert not rank(replace(read, replicates=tuple(r for r in read.replicates if r.trial == "0002"))).seeds_only
    board = rank(read_run(folder))
    assert board.seeds_only


def test_values_that_float32_can_not_hold_are_not_kept():
    data, about = pack_per_image({"val_loss": np.ones(3), "val_huge": np.array([1.0, 1e300, 2.0])})
    assert data
    assert about
    assert (list(load(data)), about.sd) == (["val_loss"], {"val_loss": 0.0})
    assert pack_per_image({"val_huge": np.array([np.nan])}) == (None, None)
    assert pack_per_image({}) == (None, None)


def test_whatever_lies_in_memory_is_packed_alike():
    columns = np.random.default_rng(3).random((IMAGES, 2)).astype(np.float32)
    data, _ = pack_per_image({"val_loss": columns[:, 1]})
    assert data
    assert load(data)["val_loss"] == pytest.approx(columns[:, 1])


# --- equal plans --------------------------------------------------------------------------------------------------


def crossed(
    rng: np.random.Generator, plans: int, seeds: int, *, tail: float = 0.0
) -> list[list[np.ndarray[Any, np.dtype[np.float64]]]]:
    """Losses of equally good plans, (images,) by plan and seed: some images are hard for some plans, with every seed.

    The deviations are about those of trainings of small models on MNIST, in units of the mean loss; with a `tail`
    some losses are a hundred times the mean.
    """
    own = rng.normal(0, 1.0, size=(plans, IMAGES))
    shared, by_seed = rng.normal(0, 3.0, size=IMAGES), rng.normal(0, 0.03, size=(plans, seeds, 1))
    rest = rng.normal(0, 0.7, size=(plans, seeds, IMAGES))
    heavy = tail * 100 * (rng.random((plans, 1, IMAGES)) < 0.01) * rng.random((plans, seeds, IMAGES))
    return [list(one) for one in 10 + shared + own[:, None] + by_seed + rest + heavy]


def board_of(losses: list[list[np.ndarray[Any, Any]]], *, kept: bool) -> Leaderboard:
    made: list[ReplicateResult] = []
    for plan, several in enumerate(losses):
        for seed, values in enumerate(several):
            about: dict[str, Any] = {"trial": f"{plan:04}", "replicate": seed + 1, "seed": seed}
            one = ReplicateResult(**about, metrics={"val_loss": float(values.mean())})
            made.append(by_image(one, val_loss=values) if kept else one)
    return rank(record(*(trial(n) for n in range(len(losses))), confirmed=made, metric="val_loss"))


@pytest.mark.parametrize("tail", [0.0, 1.0])
@pytest.mark.parametrize("count", [60, pytest.param(200, marks=pytest.mark.chaos)])
def test_equal_plans_are_told_apart_by_the_loss_in_at_most_one_ranking_of_twenty(count: int, tail: float):
    rng = np.random.default_rng(61)
    drawn = [crossed(rng, 2, 5, tail=tail) for _ in range(count)]
    now, before = ([board_of(losses, kept=kept) for losses in drawn] for kept in (True, False))
    assert sum(not board.tied for board in now) <= 0.075 * count  # 5 %, with a standard deviation of 1.5 % of 200
    assert sum(not board.tied for board in before) >= 0.2 * count  # seeds know nothing of images
    assert {board.seeds_only for board in now} == {False}
    assert {board.seeds_only for board in before} == {True}


def test_a_difference_in_the_loss_is_found():
    rng = np.random.default_rng(63)
    found = []
    for _ in range(40):
        good, bad = crossed(rng, 2, 5)
        found.append(board_of([good, [values + 0.3 for values in bad]], kept=True).tied == ())
    assert sum(found) >= 36


def test_a_race_by_the_loss_drops_nobody_whom_other_images_would_put_first():
    rng = np.random.default_rng(65)
    lost = 0
    for _ in range(100):
        losses = crossed(rng, 2, 4)
        ones = {
            f"{plan}": [
                by_image(
                    ReplicateResult(trial=f"{plan}", replicate=s, seed=s, metrics={"val_loss": v.mean()}), val_loss=v
                )
                for s, v in enumerate(several)
            ]
            for plan, several in enumerate(losses)
        }
        lost += bool(beaten(ones, "val_loss", 0.95))
    assert lost <= 9


# --- what is claimed ----------------------------------------------------------------------------------------------


def bare(one: ReplicateResult) -> ReplicateResult:
    """Return a replicate as a version wrote it that kept no values for each image."""
    return replace(one, per_image=None)


def unlike(number: int, losses: list[float]) -> list[ReplicateResult]:
    ones = replicates(number, 0.9, seeds=len(losses))
    return [replace(bare(one), metrics={"val_loss": loss}) for one, loss in zip(ones, losses, strict=True)]


def test_where_values_are_not_kept_table_verdict_and_comparison_claim_less():
    confirmed = unlike(1, [0.10, 0.11, 0.12]) + unlike(2, [0.30, 0.32, 0.31])
    board = rank(record(trial(1), trial(2), confirmed=confirmed, metric="val_loss"))
    said = "shared ranks and intervals of val_loss cover other seeds only"
    assert any(said in note for note in notes(board))
    assert "on validation (other seeds, the same images) it is ahead" in verdict(board)
    pair = compare(
        run("a", unlike(1, [0.1, 0.11, 0.12]), "val_loss"), run("b", unlike(2, [0.3, 0.32, 0.3]), "val_loss")
    )
    assert "over 3 shared seeds; it covers other seeds only, not other images)" in pair.sentence()


def test_where_values_are_kept_nothing_is_narrowed():
    confirmed = replicates(1, 0.95) + replicates(2, 0.90)
    board = rank(record(trial(1), trial(2), confirmed=confirmed, metric="val_loss"))
    assert "other seeds" not in " ".join((*notes(board), verdict(board)))
    pair = compare(run("a", replicates(1, 0.95), "val_loss"), run("b", replicates(2, 0.90), "val_loss"))
    assert (pair.difference.images, "other seeds" in pair.sentence()) == (1_000, False)


def test_values_of_some_seeds_only_are_as_good_as_none():
    ours, theirs = replicates(1, 0.95, seeds=3), replicates(2, 0.90, seeds=3)
    mixed = [bare(ours[0]), *ours[1:]]
    assert images_of(mixed + theirs, "val_loss") == 0
    assert difference(mixed, theirs, "val_loss").images == 0
    with pytest.raises(ValueError, match="not known of each image"):
        outcomes(mixed, "val_loss")


def test_values_on_other_images_are_not_compared_image_by_image():
    ours, theirs = replicates(1, 0.95, seeds=3), replicates(2, 0.90, seeds=3)
    fewer = [by_image(one, val_loss=np.arange(20.0)) for one in theirs]
    assert images_of(ours + fewer, "val_loss") == 0
    assert difference(ours, fewer, "val_loss").images == 0


def test_seeds_that_agree_on_everything_are_said_to_tell_nothing():
    pair = compare(run("a", unlike(1, [0.1, 0.2, 0.3]), "val_loss"), run("b", unlike(2, [0.2, 0.3, 0.4]), "val_loss"))
    assert pair.sentence() == (
        "a:0001 is tied with b:0002: -0.1 in val_loss over 3 shared seeds; the difference is the same with each "
        "of them, which says nothing of other seeds."
    )


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_interval_of_a_row_knows_of_other_images_where_they_are_known(metric: str):
    def interval(ones: list[ReplicateResult]) -> Any:
        return rank(record(trial(1), confirmed=ones, metric=metric)).rows[0].validation_interval

    same = replicates(1, 0.9)  # each seed gets the same share right
    known = interval(same)
    assert known.low < (0.9 if metric == "val_accuracy" else 0.1) < known.high
    assert interval([replace(bare(one), val_correct="") for one in same]) is None
    assert interval(same[:1]) is None


def test_the_interval_of_a_row_stays_among_the_values_there_are():
    ones = replicates(1, 0.99, seeds=1) + replicates(1, 1.0, seeds=1, first=101)
    (row,) = rank(record(trial(1), confirmed=ones)).rows
    assert row.validation_interval
    assert 0.0 <= row.validation_interval.low < row.validation_interval.high == 1.0
    table = csv_text([section(rank(record(trial(1), confirmed=ones[:1])))]).splitlines()
    cells = dict(zip(*(line.split(",") for line in table[:2]), strict=False))
    assert (cells["validation_low"], cells["validation_high"]) == ("", "")


def test_no_interval_of_a_loss_reaches_below_zero():
    losses = (0.02, 0.2, 0.1)
    ones = [
        replace(one, metrics={"val_loss": loss}, per_image=None)
        for one, loss in zip(replicates(1, 0.9, 3), losses, strict=True)
    ]
    (row,) = rank(record(trial(1), confirmed=ones, metric="val_loss")).rows
    assert row.validation_interval
    assert row.validation_interval.low == 0.0
    assert "[0, " in mean_text("val_loss", losses)


def test_parameters_are_no_matter_of_chance():
    def sized(number: int, parameters: float) -> list[ReplicateResult]:
        return [replace(one, metrics={"parameters": parameters}) for one in replicates(number, 0.9)]

    board = rank(record(trial(1), trial(2), confirmed=sized(1, 900) + sized(2, 1000), metric="parameters"))
    assert ([row.rank for row in board.rows], board.tied, board.seeds_only) == (["1", "2"], (), False)
    assert board.rows[0].validation_interval is None


@pytest.mark.parametrize(("seeds", "first"), [(1, 100), (3, 500)], ids=["one seed", "no shared seed"])
def test_parameters_differ_for_sure_however_few_seeds_there_are(seeds: int, first: int):
    def sized(number: int, parameters: float, first: int) -> list[ReplicateResult]:
        ones = replicates(number, 0.9, seeds, first)
        return [replace(one, metrics={"parameters": parameters}) for one in ones]

    confirmed = [*sized(1, 900, 100), *sized(2, 1000, first), *sized(3, 1000, first)]
    board = rank(record(trial(1), trial(2), trial(3), confirmed=confirmed, metric="parameters"))
    assert [(row.rank, row.rank_low, row.rank_high) for row in board.rows] == [("1", 1, 1), ("2=", 2, 3), ("2=", 2, 3)]


def test_parameters_are_compared_without_an_interval_and_without_a_tie():
    def sized(number: int, parameters: float) -> list[ReplicateResult]:
        return [replace(one, metrics={"parameters": parameters}) for one in replicates(number, 0.9, 1)]

    confirmed = [*sized(1, 900), *sized(2, 1000), *sized(3, 1000)]
    run = record(trial(1), trial(2), trial(3), confirmed=confirmed, metric="parameters")
    differ, equal = compare(run, run, "0002", "0001").sentence(), compare(run, run, "0002", "0003").sentence()
    assert differ == "cnn-1:0001 is better than cnn-1:0002: +100 in parameters, whatever the seed."
    assert equal == "cnn-1:0002 and cnn-1:0003 are equal in parameters, whatever the seed."


def test_a_ranking_of_several_runs_reads_those_of_each(folder: Path, tmp_path: Path):
    other = read_run(folder)
    assert isinstance(other, RunRecord)
    pair = compare(other, other, "0001", "0002")
    assert pair.difference.images == IMAGES
    assert not pair.difference.tied
