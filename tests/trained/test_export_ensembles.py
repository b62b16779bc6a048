"""All seeds of a plan in one file: in every format, scored as the run scored them, and asked like any other model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mnistlab.api import ImageShape, Prediction
from mnistlab.errors import DataError
from mnistlab.plugins.registry import installed
from mnistlab.store import read_run
from mnistlab.store.jsonl import encode_line
from mnistlab.trained import formats
from mnistlab.trained.formats import READ
from mnistlab.trained.portable import Portable, Together, agreement, ask_of, probabilities
from tests.trained.conftest import plan_of
from tests.trained.drawing import drawn
from tests.trained.runs import typed
from tests.trained.test_export import KINDS, about_of, needs_extra, read_back

pytestmark = pytest.mark.simulated

SCORE = {"correct": 470, "images": 500, "loss": 0.2, "val_accuracy": 0.9, "time": "2026-11-30T00:00:00+00:00"}


def scored(run: Path, *numbers: int, **changes: object) -> Path:
    """Write into the ledger that these replicates were evaluated together."""
    weights = {one.replicate: one.weights_sha256 for one in read_run(run).replicates}
    about = {"trial": "0000", "replicates": [*numbers], "weights_sha256": [weights[number] for number in numbers]}
    entry = {"schema": "mnistlab.ledger/1", "type": "ensemble", **about, **SCORE, **changes}
    (run / "test_ledger.jsonl").write_bytes(encode_line(entry))
    return run


@pytest.fixture(scope="module")
def leave(small_run: Path, tmp_path_factory: pytest.TempPathFactory):
    """Export the small run's ensemble once in each kind."""
    folder = tmp_path_factory.mktemp("left")

    def one(suffix: str) -> Path:
        needs_extra(suffix)
        path = folder / f"model{suffix}"
        if not path.exists():
            code, text = typed("export", small_run, "--ensemble", "-o", path)
            assert code == 0, text
        return path

    return one


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_gives_the_mean_of_its_members_probabilities(suffix, leave, small_run, tmp_path):
    members = []
    for number in (1, 2):
        file = tmp_path / f"{number}.safetensors"
        assert typed("export", small_run, "--replicate", number, "-o", file)[0] == 0
        members.append(read_back(file))
    back = read_back(leave(suffix))
    pixels = np.random.default_rng(0).random((7, 1, 28, 28), dtype=np.float32)
    expected = np.mean([probabilities(one.ask(pixels)) for one in members], axis=0)
    for count in (1, 2, 7):
        found = probabilities(back.ask(pixels[:count]))
        assert np.abs(found - expected[:count]).max() < 1e-4
    assert back.about.members == 2
    assert back.about.source["seed"] == [one.about.source["seed"] for one in members]
    assert back.about.source["weights_sha256"] == [one.about.source["weights_sha256"] for one in members]


@pytest.mark.parametrize("suffix", READ)
def test_pictures_are_read_by_it_as_by_any_file(suffix, leave, small_run, tmp_path):
    drawn(3).save(tmp_path / "three.png")
    code, text = typed("predict", "--json", leave(suffix), tmp_path / "three.png")
    assert code == 0, text
    _, straight = typed("predict", "--json", "--ensemble", small_run, tmp_path / "three.png")
    answer, same = json.loads(text), json.loads(straight)
    assert answer["class"] == same["class"] == "3"
    assert answer["probabilities"] == pytest.approx(same["probabilities"], abs=1e-4)
    _, single = typed("predict", "--json", small_run, tmp_path / "three.png")
    assert json.loads(single)["probabilities"] != same["probabilities"]


@pytest.mark.parametrize("suffix", KINDS)
def test_the_card_says_what_it_is_and_loads_it(suffix, leave):
    path = leave(suffix)
    text = path.with_name(f"{path.name}.md").read_text()
    assert "An ensemble of 2 image classifiers, one plan on 2 seeds, in one file, trained and exported" in text
    assert "trial 0000, replicates 1 and 2 together, seeds" in text
    assert "| cost of a prediction | 2 times that of one model |" in text
    assert "Nobody has evaluated them together on the test set." in " ".join(text.split())
    assert "this ensemble, test" not in text
    code = text.split("```python\n")[1].split("```")[0].replace(f'"{path.name}"', repr(str(path)))
    array = np.zeros((2, 1, 28, 28), np.float32)
    names = {"images": torch.from_numpy(array) if suffix == ".pt2" else array}
    exec(code, names)
    assert names["logits"].shape == (2, 10)  # type: ignore[attr-defined]


def test_the_card_holds_the_score_of_the_run(own_run, tmp_path):
    code, said = typed("export", scored(own_run, 1, 2), "--ensemble", "-o", tmp_path / "m.safetensors")
    assert code == 0, said
    assert "trial 0000, replicates 1 and 2 together: " in said
    text = (tmp_path / "m.safetensors.md").read_text()
    assert "| this ensemble, test | 470 of 500: 94.00 %" in text
    assert "| this ensemble, validation | " in text
    assert "Nobody has evaluated" not in text
    other = tmp_path / "own.safetensors"  # images that trained some of them validate nothing
    assert typed("export", scored(own_run, 1, 2, val_accuracy=None), "--ensemble", "-o", other)[0] == 0
    assert "this ensemble, validation" not in other.with_name(f"{other.name}.md").read_text()


def test_what_leaves_is_what_was_scored_together(own_run, tmp_path):
    third = own_run / "trials/0000/replicates/3"
    third.mkdir()
    for name in ("result.json", "weights.safetensors"):
        (third / name).write_bytes((own_run / "trials/0000/replicates/2" / name).read_bytes())
    body = json.loads((third / "result.json").read_text()) | {"replicate": 3}
    (third / "result.json").write_text(json.dumps({key: value for key, value in body.items() if key != "crc"}))
    _, said = typed("export", scored(own_run, 1, 2), "--ensemble", "-o", tmp_path / "m.safetensors")
    assert "replicates 1 and 2 together" in said
    (own_run / "test_ledger.jsonl").unlink()
    _, said = typed("export", own_run, "0", "--ensemble", "-o", tmp_path / "all.safetensors")
    assert "replicates 1, 2 and 3 together" in said


def test_one_model_is_no_ensemble(own_run, tmp_path):
    (own_run / "trials/0000/replicates/2/result.json").unlink()
    code, text = typed("export", own_run, "--ensemble", "-o", tmp_path / "m.pt2")
    assert code == 2
    assert "trial 0000 has one model, and an ensemble is made of two or more; mnistlab confirm" in text


def test_options_that_exclude_each_other_are_refused(small_run, leave, tmp_path):
    code, text = typed("export", small_run, "--ensemble", "--replicate", 1, "-o", tmp_path / "m.pt2")
    assert (code, "--ensemble takes all replicates, and --replicate one" in text) == (2, True)
    drawn(3).save(tmp_path / "three.png")
    code, text = typed("predict", "--ensemble", leave(".safetensors"), tmp_path / "three.png")
    assert (code, "--ensemble is for runs" in text) == (2, True)


def test_a_file_that_lacks_a_member_is_refused(leave):
    path = leave(".safetensors")
    one = formats.read(path.read_bytes(), path.name, installed).about
    data = path.read_bytes().replace(b"members.1.", b"members.7.")
    with pytest.raises(DataError, match=r"^m\.safetensors is damaged"):
        formats.read(data, "m.safetensors", installed)
    assert one.members == 2


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("name", ["mlp", "vit", "resnet", "lenet"])
def test_every_format_takes_the_ensemble_of_what_it_takes_one_of(suffix, name, own_plugins):
    needs_extra(suffix)
    shape, scale = ImageShape(1, 28, 28, 10), torch.full((1, 1, 1, 1), 0.3)
    offer = own_plugins.find("model", f"mnistlab:{name}")
    config = offer.record.config()
    part = {"name": name, "plugin": offer.qualified, "distribution": "mnistlab", "version": offer.version}
    plan = {**plan_of(own_plugins), "model": {**part, "config": config.model_dump(mode="json")}}
    predict = offer.record.predict or (lambda inner, images: Prediction(logits=inner(images)))
    models = [Portable(offer.record.build(config, shape), predict, scale, scale).eval() for _ in range(2)]
    both = Together(models).eval()
    _, back = formats.written(both, about_of(plan=plan, members=2), f"m{suffix}", lambda: own_plugins)
    pixels = np.random.default_rng(0).random((5, 1, 28, 28), dtype=np.float32)
    assert agreement(ask_of(both)(pixels), back.ask(pixels), np.zeros(5, np.int64)).good
