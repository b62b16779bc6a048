"""`confirm.splits = "fresh"`: each seed of the confirmation validates on images of its own, the same for all plans."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnistlab.api import DatasetInfo, ImageShape, LabelledImages
from mnistlab.data import default_place, part_of, split_indices
from mnistlab.experiment.dataset import divided
from mnistlab.experiment.recorded import open_data
from mnistlab.experiment.spec import DataSpec
from mnistlab.leaderboard import group, rank
from mnistlab.leaderboard.compare import NotComparableError, compare
from mnistlab.leaderboard.intervals import mean_interval, student
from mnistlab.leaderboard.racing import difference, own_splits
from mnistlab.leaderboard.statistics import selection_gap
from mnistlab.plugins.discovery import selection
from mnistlab.plugins.registry import select
from mnistlab.store import read_run
from mnistlab.store.fsck import check
from mnistlab.store.results import ReplicateResult, RunRecord, Split, replicate_from_json, to_json
from mnistlab.util.seeds import Stream, derive, split_seeds
from tests.conftest import RunCli
from tests.leaderboard.test_ranking import record, replicates, trial


def own(number: int, accuracy: float, seeds: int = 5, images: int = 1_000) -> list[ReplicateResult]:
    """Confirm a trial by seeds each of which has drawn its own split of 6,000 images."""
    made = replicates(number, accuracy, seeds)
    splits = [Split(sha256=f"split-{one.seed}", train=5_000, validation=images) for one in made]
    return [replace(one, split=split) for one, split in zip(made, splits, strict=True)]


def jittered(made: list[ReplicateResult], by: float) -> list[ReplicateResult]:
    """Give each seed of a plan another accuracy, up and down in turn."""
    values = [one.metrics["val_accuracy"] + by * (-1) ** i * (1 + i / 10) for i, one in enumerate(made)]
    return [replace(one, metrics={**one.metrics, "val_accuracy": v}) for one, v in zip(made, values, strict=True)]


# --- how a split is drawn -----------------------------------------------------------------------------------------

LABELS = np.arange(600, dtype=np.int64) % 10
WRITERS = np.arange(600, dtype=np.int64) // 20
IMAGES = LabelledImages(images=np.zeros((600, 1, 2, 2), np.uint8), labels=LABELS, groups=WRITERS)
INFO = DatasetInfo(
    shape=ImageShape(1, 2, 2, 10), class_names=tuple("0123456789"), train_count=600, test_count=10, source="", sha256={}
)


def drawn(number: int, *, fallback: bool = False, **data: Any) -> Any:
    return divided(DataSpec(**data), 7, IMAGES, INFO, number, fallback=fallback)


def test_the_run_s_own_split_is_what_it_ever_was() -> None:
    assert split_seeds(7) == (derive(7, Stream.SPLIT), derive(7, Stream.PART))
    whole = split_indices(LABELS, None, validation=100, seed=derive(7, Stream.SPLIT))
    assert drawn(0, validation=100).digest() == whole.digest()
    part = part_of(whole, LABELS, train=200, seed=derive(7, Stream.PART))
    assert drawn(0, validation=100, train=200).digest() == part.digest()


@pytest.mark.parametrize("data", [{}, {"validation": 90}, {"train": 200}, {"train": 0.5}, {"split": "writer"}])
def test_each_number_has_its_own_split_of_the_same_kind(data: dict[str, Any]) -> None:
    splits = [drawn(number, **data) for number in range(4)]
    assert len({one.digest() for one in splits}) == 4
    for one, other in combinations(splits, 2):
        assert not np.array_equal(one.validation, other.validation)
    for one in splits:
        assert not set(one.train) & set(one.validation)
        assert len(one.train) + len(one.validation) + one.left_out == 600
        assert set(LABELS[one.train]) == set(LABELS[one.validation]) == set(range(10))
    assert drawn(2, **data).digest() == splits[2].digest()


# --- what it says of two plans ------------------------------------------------------------------------------------


def test_images_of_two_seeds_are_never_paired() -> None:
    """The interval is that of the seeds' numbers alone, wider by what such splits share."""
    a, b = jittered(own(1, 0.95), 0.004), own(2, 0.93)
    found = difference(a, b, "val_accuracy")
    gains = [x.metrics["val_accuracy"] - y.metrics["val_accuracy"] for x, y in zip(a, b, strict=True)]
    reach = student(5, 0.95) * float(np.std(gains, ddof=1)) * math.sqrt(1 / 5 + 1_000 / 5_000)
    assert found.mean == pytest.approx(np.mean(gains))
    assert found.interval.high - found.mean == pytest.approx(reach)
    assert found.images == 1_000
    turned = [replace(one, val_correct=one.val_correct[::-1]) for one in b]
    assert difference(a, turned, "val_accuracy") == found  # which image was right is no part of it


def test_a_split_of_fewer_images_or_of_a_loss_is_compared_alike() -> None:
    a, b = own(1, 0.95), jittered(own(2, 0.90), 0.002)
    short = [replace(one, val_correct=one.val_correct[: 900 + i]) for i, one in enumerate(b)]  # whole writers
    assert difference(a, short, "val_accuracy").images == 1_000
    assert difference(a, b, "val_loss").images == 1_000
    alone = difference(a, b, "val_loss")
    bare = [replace(one, per_image=None) for one in (*a, *b)]
    assert difference(bare[:5], bare[5:], "val_loss") == alone


def test_images_that_data_train_leaves_out_count_among_the_others() -> None:
    few = Split(sha256="", train=500, validation=1_000, left_out=4_500)
    assert few.overlap == pytest.approx(0.2)
    assert own_splits([replace(one, split=few) for one in own(1, 0.9)]) == {"overlap": 0.2, "images": 1_000}


def test_seeds_of_unlike_splits_are_no_pair() -> None:
    a, b = jittered(own(1, 0.95), 0.004), own(2, 0.93)
    other = replace(b[0], split=Split(sha256="other", train=5_000, validation=1_000))
    assert difference(a, [other, *b[1:]], "val_accuracy") == difference(a[1:], b[1:], "val_accuracy")
    assert difference(a, replicates(2, 0.93), "val_accuracy").interval.high == math.inf  # of the run's own split


def test_a_mean_is_as_sure_as_such_splits_make_it() -> None:
    ones = jittered(own(1, 0.95), 0.004)
    row = rank(record(trial(1), confirmed=ones)).rows[0]
    values = [one.metrics["val_accuracy"] for one in ones]
    wide, narrow = mean_interval(values, overlap=0.2), mean_interval(values)
    assert row.validation_interval == wide
    assert wide
    assert narrow
    assert (wide.high - wide.low) == pytest.approx((narrow.high - narrow.low) * math.sqrt(2))


def test_validation_and_test_differ_by_what_their_images_say() -> None:
    rng = np.random.default_rng(0)
    validation, test = rng.random((4, 500)) < 0.95, rng.random((4, 800)) < 0.95
    mixed = selection_gap(np.array([rng.permutation(row) for row in validation]), test, overlap=0.2)
    assert mixed == selection_gap(validation, test, overlap=0.2)  # whichever image stands in a column
    assert mixed.images == 1_300
    wide = selection_gap(validation, test, overlap=0.5)
    assert wide.interval.high > mixed.interval.high


def test_a_claim_holds_for_other_images_too() -> None:
    board = rank(record(trial(1), trial(2), confirmed=own(1, 0.95) + own(2, 0.80)))
    assert not board.seeds_only
    bare = [replace(one, per_image=None) for one in own(1, 0.95) + own(2, 0.80)]
    assert not rank(record(trial(1), trial(2), confirmed=bare, metric="val_loss")).seeds_only


def test_a_comparison_tests_each_seed_and_pools_no_images() -> None:
    one = record(trial(1), trial(2), confirmed=jittered(own(1, 0.95), 0.004) + own(2, 0.80))
    found = compare(one, one, "0001", "0002")
    (part,) = [part for part in found.parts if part.part == "validation"]
    assert part.bootstrap is None
    assert len(part.by_seed) == 5
    assert part.by_seed[0].test.p < 0.001


def fresh(one: RunRecord, name: str) -> RunRecord:
    run = {**one.run, "run": name, "experiment": {"confirm": {"splits": "fresh"}}}
    return replace(one, path=f"runs/{name}", run=run)


def test_runs_with_and_without_it_are_ranked_apart() -> None:
    confirmed = own(1, 0.95) + own(2, 0.80)
    one = record(trial(1), trial(2), confirmed=confirmed, dataset={"name": "mnist", "split_sha256": "s"})
    assert len(group([fresh(one, "a"), fresh(one, "b")])) == 1
    assert len(group([one, fresh(one, "b")])) == 2
    with pytest.raises(NotComparableError, match="in one of them each seed draws its own split"):
        compare(one, fresh(one, "b"))


def test_a_result_says_its_split_only_where_it_has_its_own() -> None:
    (ours,) = own(1, 0.9, seeds=1)
    (plain,) = replicates(1, 0.9, seeds=1)
    assert to_json(ours)["split"] == {"sha256": "split-100", "train": 5_000, "validation": 1_000, "left_out": 0}
    assert "split" not in to_json(plain)
    assert replicate_from_json(json.loads(json.dumps(to_json(ours)))).split == ours.split


# --- a whole run --------------------------------------------------------------------------------------------------

TEXT = """
name = "fresh"
[data]
dataset = "digits"
validation = 300
train = 400
[model.mlp]
depth = 1
width = [32, 64]
[training]
epochs = 2
[search]
trials = 2
scheduler = "none"
[confirm]
top = 2
seeds = 2
splits = "fresh"
refit = true
"""


@pytest.mark.simulated
def test_a_run_whose_seeds_draw_their_own_splits(run_here: RunCli, tmp_path: Path) -> None:
    (tmp_path / "fresh.toml").write_text(TEXT)
    ran = run_here("search", "fresh.toml", "--executor", "local", "--ui", "plain")
    assert ran.code == 0, ran.err
    run = next((tmp_path / "runs").iterdir())
    found = read_run(run)
    by_number: dict[int, set[Any]] = {}
    for one in found.replicates:
        by_number.setdefault(one.replicate, set()).add(one.split)
        assert one.split
        assert (one.split.train, one.split.validation, one.split.left_out) == (400, 300, 597)
        assert len(one.val_correct) == 300
    assert [len(splits) for splits in by_number.values()] == [1, 1]  # the same for all plans
    assert by_number[1] != by_number[2]
    assert [one.split for one in found.refits] == [None]

    more = run_here("confirm", run.name, "--seeds", "3", "--executor", "local", "--ui", "plain")
    assert more.code == 0, more.err
    assert {one.replicate for one in read_run(run).replicates} == {1, 2, 3}
    assert check(run).findings == ()

    for number in ("1", "3"):
        again = run_here("reproduce", run.name, "--replicate", number)
        assert "Agrees exactly" in again.out, again.err
        assert "and the weights" in again.out
    told = run_here("compare", f"{run.name}:0000", f"{run.name}:0001")
    assert "each seed drew its own split" in told.out, told.err
    report = run_here("report", run.name, "-o", "report.md", "--format", "md")
    assert report.code == 0, report.err
    said = (tmp_path / "report.md").read_text()
    assert "Each seed of the confirmation drew its own split" in said
    assert "could not be asked again" not in said

    here = select(selection((), only_built_in=True))
    first = next(one for one in read_run(run).replicates if one.replicate == 3)
    data = open_data(read_run(run), replace(default_place(None), offline=True), here, first)
    assert first.split
    assert data.division.digest() == first.split.sha256


@pytest.mark.simulated
def test_a_split_that_is_drawn_otherwise_is_refused(run_here: RunCli, tmp_path: Path) -> None:
    (tmp_path / "fresh.toml").write_text(TEXT.replace("top = 2", "top = 1").replace("seeds = 2", "seeds = 1"))
    ran = run_here("search", "fresh.toml", "--executor", "local", "--ui", "plain")
    assert ran.code == 0, ran.err
    run = next((tmp_path / "runs").iterdir())
    file = next(run.glob("trials/*/replicates/1/result.json"))
    body = json.loads(file.read_text())
    body["split"]["sha256"] = "0" * 64
    del body["crc"]
    file.write_text(json.dumps(body))
    again = run_here("reproduce", run.name, body["trial"], "--replicate", "1")
    assert again.code == 5
    assert "can't be drawn again: a library draws otherwise by now" in again.err
