from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import DISTS

pytestmark = pytest.mark.e2e

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


def learnt(out: str) -> list[tuple[str, ...]]:
    """What the lines of the epochs say that is not about time."""
    line = r"epoch (\d)/2  train_loss ([\d.]+)  val_loss ([\d.]+)  val_accuracy ([\d.]+)%  [\d,]+ images/s  [\d.]+ s"
    return [match.groups() for match in map(re.compile(line).fullmatch, out.splitlines()) if match]


def test_the_same_seed_gives_the_same_numbers(run_cli, tmp_path):
    (tmp_path / "x.toml").write_text(TEXT)
    options = (("--seed", 1), ("--set", "seed=1"))
    with ThreadPoolExecutor(2) as pool:  # most of the time goes into imports
        runs = list(pool.map(lambda seed: run_cli("train", "x.toml", "--threads", 1, *seed), options))
    assert [ran.code for ran in runs] == [0, 0], runs[0].err
    one, again = (learnt(ran.out) for ran in runs)
    assert [epoch for epoch, *_ in one] == ["1", "2"]
    assert float(one[1][3]) > 60
    assert one == again
    assert "mlp depth=1" in runs[0].err
    assert "on digits, " in runs[0].err
    assert [path.name for path in tmp_path.iterdir()] == ["x.toml"]  # no run directory, no ledger: nothing was opened


def test_a_plugin_that_fails_is_shown_to_its_author(run_cli, tmp_path):
    (tmp_path / "x.toml").write_text('name = "x"\n[data]\ndataset = "digits"\n[model.tiny-net]\n')
    ran = run_cli("train", "x.toml", PYTHONPATH=str(DISTS / "healthy"))
    assert ran.code == 5
    assert "healthy_plugin.py" in ran.err
    assert ran.err.splitlines()[-1] == "mnistlab: the training failed (plugin): NotImplementedError()"


def test_ctrl_c_ends_a_training_with_130(tmp_path):
    (tmp_path / "x.toml").write_text(TEXT)
    command = [str(Path(sys.executable).parent / "mnistlab"), "train", "x.toml", "--set", "training.epochs=100000"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline().startswith("epoch 1/100000")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
