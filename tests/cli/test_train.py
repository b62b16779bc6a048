from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import DISTS, Ran
from tests.forked import forked

TEXT = """
name = "train"
[data]
dataset = "digits"
[model.mlp]
depth = 1
width = 32
[training]
epochs = 2
"""

BAD_MODELS = """
import sys
from torch import nn
from mnistlab.api import Config, Model, hookimpl

class Nothing(Config):
    pass

class Diverges(nn.Linear):
    def forward(self, images):
        return super().forward(images.flatten(1)) * float("nan")

def diverging(config, shape):
    return Diverges(shape.pixels, shape.classes)

def narrow(config, shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.pixels, 7))

@hookimpl
def mnistlab_models():
    return [
        Model(name="leaves", config=Nothing, build=lambda config, shape: sys.exit(0), summary="Calls exit."),
        Model(name="diverges", config=Nothing, build=diverging, summary="Says nan."),
        Model(name="narrow", config=Nothing, build=narrow, summary="Knows seven digits."),
    ]
"""


def learnt(out: str) -> list[tuple[str, ...]]:
    """What the lines of the epochs say that is not about time."""
    line = r"epoch (\d)/2  train_loss ([\d.]+)  val_loss ([\d.]+)  val_accuracy ([\d.]+)%  [\d,]+ images/s  [\d.]+ s"
    return [match.groups() for match in map(re.compile(line).fullmatch, out.splitlines()) if match]


def test_the_same_seed_gives_the_same_numbers(run_here, tmp_path):
    (tmp_path / "x.toml").write_text(TEXT)
    runs = [run_here("train", "x.toml", "--threads", 1, *seed) for seed in (("--seed", 1), ("--set", "seed=1"))]
    assert [ran.code for ran in runs] == [0, 0], runs[0].err
    one, again = (learnt(ran.out) for ran in runs)
    assert [epoch for epoch, *_ in one] == ["1", "2"]
    assert float(one[1][3]) > 60
    assert one == again
    assert "mlp depth=1" in runs[0].err
    assert "on digits, " in runs[0].err
    assert [path.name for path in tmp_path.iterdir()] == ["x.toml"]  # no run directory, no ledger: nothing was opened


def test_a_choice_that_the_experiment_leaves_is_told_and_can_be_made(run_here, tmp_path):
    text = TEXT.replace("epochs = 2", "epochs = 1") + "[model.lenet]\n[optimizer.sgd]\n[optimizer.adamw]\n"
    (tmp_path / "x.toml").write_text(text)
    ran = run_here("train", "x.toml")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines()[:2] == [
        "model mlp, the first of 2 models in the experiment; --model takes another: lenet",
        "optimizer sgd, the first of 2 optimizers in the experiment; --optimizer takes another: adamw",
    ]
    assert ran.err.splitlines()[2].startswith("mlp ")
    other = run_here("train", "x.toml", "--model", "lenet", "--optimizer", "adamw")
    assert other.code == 0, other.err
    (label,) = other.err.splitlines()
    assert re.match(r"lenet .* · adamw ", label)
    wrong = run_here("train", "x.toml", "--model", "lenett", "--optimizer", "adam")
    assert wrong.code == 2
    assert wrong.err.splitlines() == [
        "mnistlab: train: 2 faults",
        "  [--model] must be one of mlp, lenet (got 'lenett'); did you mean 'lenet'?",
        "  [--optimizer] must be one of sgd, adamw (got 'adam'); did you mean 'adamw'?",
    ]


def test_a_plugin_that_fails_is_shown_to_its_author(run_here, tmp_path):
    (tmp_path / "x.toml").write_text('name = "x"\n[data]\ndataset = "digits"\n[model.tiny-net]\n')
    ran = run_here("train", "x.toml", PYTHONPATH=str(DISTS / "healthy"))
    assert ran.code == 5
    assert "healthy_plugin.py" in ran.err
    assert ran.err.splitlines()[-1] == "mnistlab: the training failed (plugin): NotImplementedError()"


@pytest.fixture
def train_badly(run_here, tmp_path):
    """Train a model of a plugin that is installed for this test alone."""
    (tmp_path / "bad_models.py").write_text(BAD_MODELS)
    info = tmp_path / "bad_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mnistlab.v1]\nbad = bad_models\n")

    def train(model: str) -> Ran:
        (tmp_path / "x.toml").write_text(f'name = "x"\n[data]\ndataset = "digits"\n[model.{model}]\n')
        return run_here("train", "x.toml", PYTHONPATH=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")

    return train


def test_a_plugin_that_calls_exit_has_failed(train_badly):
    ran = train_badly("leaves")
    assert ran.code == 5
    assert "bad_models.py" in ran.err
    assert ran.err.splitlines()[-1] == "mnistlab: the training failed (plugin): SystemExit(0)"


def test_a_loss_that_is_no_number_ends_a_training_with_1_and_no_traceback(train_badly):
    ran = train_badly("diverges")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert ran.err.splitlines()[-1].startswith("mnistlab: the training failed: the training loss became nan in epoch 1")


def test_a_model_of_another_number_of_classes_is_told_both_numbers(train_badly):
    ran = train_badly("narrow")
    assert ran.code == 5
    assert "Traceback" not in ran.err
    said = "the model gives (N, 7), but the dataset has 10 classes: its logits must be (N, 10)"
    assert ran.err.splitlines()[-1] == f"mnistlab: {said}"


# --- ends that are nobody's failure -------------------------------------------------------------------------------


@pytest.fixture
def command(digits, tmp_path) -> list[str]:
    """What is typed to train on files, which are there sooner than scikit-learn is."""
    (tmp_path / "x.toml").write_text(TEXT.replace('"digits"', '"idx"\nvalidation = 300'))
    return ["train", "x.toml", "--data-dir", str(digits)]


@pytest.fixture
def endless(command, tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A training that goes on until it is stopped and has printed its first epoch."""
    process = forked([*command, "--set", "training.epochs=100000"], tmp_path, os.environ)
    try:
        assert process.stdout.readline().startswith("epoch 1/100000")
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.simulated
def test_ctrl_c_ends_a_training_with_130_and_a_word(endless):
    endless.send_signal(signal.SIGINT)
    _, err = endless.communicate(timeout=60)
    assert endless.returncode == 130
    assert err.splitlines()[1:] == ["mnistlab: interrupted"]


@pytest.mark.simulated
def test_a_reader_that_goes_ends_a_training_without_a_word(endless):
    endless.stdout.close()
    err = endless.stderr.read()
    assert endless.wait(60) == 1
    assert len(err.splitlines()) == 1, err  # the plan
    assert "failed" not in err


@pytest.mark.e2e
def test_lines_for_a_pipe_reach_it_while_the_terminal_shows_a_bar(command, run_here, tmp_path):
    terminal, ours = pty.openpty()
    command = [*command, "--threads", "1"]
    try:
        done = subprocess.run(
            [Path(sys.executable).parent / "mnistlab", *command],
            check=True,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=ours,
            text=True,
            timeout=60,
        )
        assert b"training" in os.read(terminal, 100_000)
    finally:
        os.close(terminal)
        os.close(ours)
    assert len(learnt(done.stdout)) == 2
    assert learnt(done.stdout) == learnt(run_here(*command).out)  # the same seed in another process
