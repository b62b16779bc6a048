from __future__ import annotations

import json
import re

import pytest

from tests.cli.test_train import BAD_MODELS

TEXT = """
name = "small"
[data]
dataset = "mnist"
offline_fallback = "digits"
validation = 297
[model.lenet]
[model.mlp]
width = { low = 32, high = 64, step = 32 }
[optimizer.sgd]
lr = [0.1, 0.2]
[transform.shift]
[training]
batch_size = [64, 128]
[search]
trials = 5
[resources]
max_parallel = 1
"""


@pytest.mark.e2e
def test_check_shows_space_plan_data_and_devices_and_leaves_nothing_behind(run_cli, tmp_path):
    (tmp_path / "small.toml").write_text(TEXT)
    ran = run_cli("check", "small.toml", "--set", "model.mlp.depth=1", "--set", "seed=7")
    assert ran.code == 0, ran.err
    assert "small.toml is valid: experiment 'small', seed 7" in ran.out
    rows = {line.split("  ")[0]: re.sub(" {2,}", " | ", line.strip()) for line in ran.out.splitlines()}
    assert rows["parameter"] == "parameter | domain | condition | default"
    assert rows["model"] == "model | one of lenet, mlp | lenet"
    assert rows["model.mlp.width"] == "model.mlp.width | integer 32..64 (step 32) | model = mlp | 64"
    assert rows["model.mlp.depth"] == "model.mlp.depth | fixed: 1 | 1"
    assert rows["optimizer.sgd.lr"].startswith("optimizer.sgd.lr | one of 0.1, 0.2 | ")
    assert rows["training.batch_size"] == "training.batch_size | one of 64, 128 | 128"
    assert "5 trials by auto, scheduler halving" in ran.out
    plan = json.loads(ran.out[ran.out.index("\n{\n") : ran.out.index("\n}\n") + 3])
    assert plan["model"]["plugin"] == "mnistlab:lenet"
    assert plan["transforms"][0]["name"] == "shift"
    assert "FALLBACK: mnist is not available" in ran.out
    assert "Dataset: digits from scikit-learn, load_digits(): 1000 to train, 297 to validate, 500 sealed for" in ran.out
    assert "Models: lenet, mlp; each of them, made of its defaults, gives a logit for each of 10 classes" in ran.out
    assert re.search(r"Devices: \d+ CPUs?.*; 1 trials? in parallel, 1 CPU each", ran.out)
    assert "Proposals: auto: the plan of all defaults first, then TPE beside plans near" in ran.out
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]


def test_a_run_to_start_from_that_is_not_there_is_a_fault_beside_the_others(run_here, tmp_path):
    (tmp_path / "small.toml").write_text(TEXT)
    ran = run_here("check", "small.toml", "--like", "gone", "--set", "model.mlp.depth=99")
    assert ran.code == 2
    assert "[search.like] no run 'gone' here or in runs" in ran.err
    assert "[model.mlp.depth]" in ran.err


def test_check_shows_what_the_author_may_not_have_meant(run_here, tmp_path):
    text = TEXT.replace("[model.mlp]\nwidth = { low = 32, high = 64, step = 32 }\n", "")
    (tmp_path / "small.toml").write_text(text.replace("[search]", '[search]\nalgorithm = "grid"'))
    fixed = ("momentum=0.9", "schedule=constant", "warmup=0.1", "weight_decay=1e-4")
    net = ("--set", "model.lenet.width=1.0", "--set", "model.lenet.dropout=0.0")
    options = [word for setting in fixed for word in ("--set", f"optimizer.sgd.{setting}")]
    ran = run_here("check", "small.toml", "--set", "transform.shift.pixels=[0, 1]", *net, *options)
    assert ran.code == 0, ran.err
    assert "WARNING: search.trials = 5, but the grid has 48 points: 43 will not be tried\n" in ran.out


def test_check_asks_every_model_and_names_those_that_can_not_be_trained(run_here, tmp_path):
    (tmp_path / "bad_models.py").write_text(BAD_MODELS)
    text = TEXT.replace("[model.lenet]", "[model.leaves]\n[model.narrow]\n[model.lenet]")
    (tmp_path / "small.toml").write_text(text)
    ran = run_here("check", "small.toml", "--plugin", "bad_models.py")
    assert ran.code == 5
    assert ran.err.splitlines() == [
        "mnistlab: [model.leaves] failed on two blank images: SystemExit(0)",
        "[model.narrow] the model gives (N, 7), but the dataset has 10 classes: its logits must be (N, 10)",
    ]
