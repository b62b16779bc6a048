"""The same plan with the same seed once more: it agrees to the last bit, and what differs is said."""

from __future__ import annotations

import pytest

from mnistlab.store.results import RunRecord
from mnistlab.trained.reproduce import compare, differences
from tests.trained.runs import change, finished_run, typed

pytestmark = pytest.mark.simulated


def test_the_champion_s_first_replicate_comes_out_bit_for_bit(small_run):
    code, text = typed("reproduce", small_run)
    assert code == 0, text
    assert "trial 0000, replicate 1, seed " in text
    assert text.count("the same") == 2
    assert "Agrees exactly: 2 epochs, 6 numbers and the weights" in text


def test_a_named_trial_is_trained_itself_and_has_no_weights_to_compare(small_run):
    code, text = typed("reproduce", small_run, 0)
    assert code == 0, text
    assert "replicate" not in text
    assert "Agrees exactly: 2 epochs, 6 numbers; the run kept no weights" in text


def test_a_pruned_trial_is_trained_as_far_as_it_came(own_run):
    def prune(trial):
        trial["history"] = trial["history"][:1]
        trial["state"] = "pruned"

    change(own_run / "trials/0000/result.json", prune)
    code, text = typed("reproduce", own_run, "0000")
    assert code == 0, text
    assert "Agrees exactly: 1 epochs, 3 numbers" in text


def test_a_failure_that_does_not_come_again_is_no_agreement(own_run):
    change(own_run / "trials/0000/result.json", lambda trial: trial.update(state="failed", cause="nan", history=[]))
    code, text = typed("reproduce", own_run, "0000")
    assert code == 1
    assert "the training failed now: no, then: nan" in text


def test_a_trial_of_which_no_epoch_ended_can_t_be_compared(own_run):
    change(own_run / "trials/0000/result.json", lambda trial: trial.update(state="interrupted", history=[]))
    code, text = typed("reproduce", own_run, "0000")
    assert code == 2
    assert "no epoch of it has ended" in text


BROKEN = """
name = "broken"
[data]
dataset = "digits"
validation = 300
[model.mlp]
depth = 1
width = 32
[training]
epochs = 1
[optimizer.sgd]
[confirm]
seeds = 1
"""


def test_a_failure_that_comes_again_agrees(tmp_path):
    run = finished_run(tmp_path, BROKEN)

    def break_it(trial):
        trial["plan"]["optimizer"]["config"]["lr"] = 1e30
        trial.update(state="failed", cause="nan", history=[])

    change(run / "trials/0000/result.json", break_it)
    code, text = typed("reproduce", run, "0000")
    assert code == 0, text
    assert "it failed again (nan)" in text


def test_numbers_that_differ_are_shown_with_what_is_other_here(own_run):
    def spoil(result):
        result["history"][1]["val_loss"] += 0.25
        result["weights_sha256"] = "0" * 64

    change(own_run / "trials/0000/replicates/2/result.json", spoil)
    change(own_run / "run.json", lambda run: run["versions"].update(torch="1.13.0"))
    code, text = typed("reproduce", own_run, "0000", "--replicate", 2)
    assert code == 1
    assert "differs: val_loss" in text
    assert "1 of 6 numbers differ, the first in epoch 2" in text
    assert "the weights are others" in text
    assert "Other here than in the run:\n  torch: " in text
    assert "here, 1.13.0 then" in text


def test_a_plugin_of_another_version_is_refused_unless_that_is_asked_for(own_run):
    change(own_run / "trials/0000/result.json", lambda trial: trial["plan"]["model"].update(version="0.0.1"))
    code, text = typed("reproduce", own_run)
    assert code == 5
    assert "model 'mnistlab:cnn' is of version" in text
    assert "but the run had 0.0.1" in text
    code, text = typed("reproduce", own_run, "--other-versions")
    assert code == 0
    assert "Agrees exactly" in text
    assert "but the run had 0.0.1" in text


def test_other_data_are_refused(own_run):
    change(own_run / "run.json", lambda run: run["dataset"]["sha256"].update({"train-labels": "0" * 64}))
    code, text = typed("reproduce", own_run)
    assert code == 5
    assert text.startswith(f"{own_run} was made with other data than is here (")
    assert f"  train-labels: sha256 {'0' * 64} then, " in text


def test_a_split_that_is_not_the_run_s_is_refused(own_run):
    change(own_run / "run.json", lambda run: run["dataset"]["validation_indices"].reverse())
    code, text = typed("reproduce", own_run)
    assert code == 6
    assert "its split is not the one that its sha256 stands for" in text


@pytest.mark.parametrize(
    ("change_of", "code", "said"),
    [
        ({"images_sha256": "1" * 64}, 5, f"training images and labels: sha256 {'1' * 64} then"),
        ({"test": 7}, 5, "+ 7 images then"),
        ({"fallback": "no network"}, 5, "which its own experiment does not name"),
        ({"validation_indices": [10**6]}, 6, "its split is not the one that its sha256 stands for"),
    ],
)
def test_what_run_json_says_of_the_data_is_checked_whole(own_run, change_of, code, said):
    change(own_run / "run.json", lambda run: run["dataset"].update(change_of))
    assert typed("reproduce", own_run)[0] == code
    assert said in typed("reproduce", own_run)[1]


def test_what_is_not_there_is_said_with_what_is(own_run):
    for words, message in (
        (["0003"], "no trial '0003' has ended; known: 0000"),
        (["--replicate", "7"], "trial 0000 has no replicate 7 that can be used; it has: 1 and 2"),
    ):
        code, text = typed("reproduce", own_run, *words)
        assert code == 2
        assert message in text


PLUGIN = """
from torch import nn
from mnistlab.api import Config, Model, hookimpl

class Nothing(Config):
    pass

@hookimpl
def mnistlab_models():
    return [Model(name="flat", config=Nothing, summary="One layer.", build=lambda config, shape: nn.Sequential(
        nn.Flatten(), nn.Linear(shape.pixels, shape.classes)))]
"""
FLAT = """
name = "flat"
[data]
dataset = "digits"
validation = 300
[model.flat]
[training]
epochs = 1
[confirm]
seeds = 1
"""


def test_a_plugin_in_a_single_file_is_run_only_where_it_is_named(tmp_path):
    source = tmp_path / "flat_model.py"
    source.write_text(PLUGIN)
    run = finished_run(tmp_path, FLAT, plugins=(source,))
    source.unlink()
    code, text = typed("reproduce", run)
    assert code == 5
    kept = run / "plugins" / "flat_model.py"
    assert f"the run kept its source: read it, then add --plugin {kept}" in text
    code, text = typed("reproduce", run, "--plugin", kept)
    assert code == 0, text


def test_times_are_no_part_of_the_comparison():
    then = {"val_loss": 0.5, "seconds": 1.0, "images_per_second": 9.0}
    assert compare(1, then, {"val_loss": 0.5, "seconds": 2.0, "images_per_second": 3.0}) == ()
    (apart,) = compare(3, then, {"val_loss": 0.25, "seconds": 1.0})
    assert (apart.epoch, apart.metric, apart.then, apart.now, apart.distance) == (3, "val_loss", 0.5, 0.25, 0.25)
    assert compare(1, then, {})[0].distance == float("inf")


@pytest.mark.parametrize(
    ("machine", "here", "said"),
    [
        ({"gpus_per_trial": 0.0, "cpus_per_trial": 2}, {"device": "CPU", "CPU threads": "2"}, []),
        ({"cpus_per_trial": 2}, {"device": "CPU", "CPU threads": "1"}, ["CPU threads: 1 here, 2 then"]),
        (
            {"gpus_per_trial": 0.5, "device": "8 CPUs, 1 GPU (NVIDIA A100)"},
            {"device": "CPU"},
            ["device: CPU here, 8 CPUs, 1 GPU (NVIDIA A100) then"],
        ),
        ({"gpus_per_trial": 1, "device": "8 CPUs, 1 GPU (NVIDIA A100)"}, {"device": "NVIDIA A100"}, []),
        ({"processor": "aarch64"}, {"device": "CPU", "processor": "x86_64"}, ["processor: x86_64 here, aarch64 then"]),
    ],
)
def test_what_differs_between_machines_is_said(machine, here, said):
    assert list(differences(RunRecord(path="x", run={"machine": machine}), here)) == said
