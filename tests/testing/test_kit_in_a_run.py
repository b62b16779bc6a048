"""The kit and the `lab` fixture as an author meets them: in a pytest run of their own, in another process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.forked import by_pytest

pytestmark = pytest.mark.e2e
pytest_plugins = ["pytester"]

PLUGIN = """
from typing import Annotated
import torch
from torch import nn
from mnistlab.api import Config, Float, ImageShape, Int, Model, Transform, hookimpl


class Tiny(Config):
    width: Annotated[int, Int(4, 8)] = 4


class Dim(Config):
    strength: Annotated[float, Float(0.0, 0.5)] = 0.2


def build(config: Tiny, shape: ImageShape) -> nn.Module:
    layers = nn.Linear(shape.pixels, config.width), nn.ReLU(), nn.Linear(config.width, shape.classes)
    return nn.Sequential(nn.Flatten(), *layers)


def dim(config: Dim, shape: ImageShape):
    return lambda images, g: images * (1 - config.strength * torch.rand(len(images), 1, 1, 1, generator=g))


def in_place(config: Dim, shape: ImageShape):
    return lambda images, g: images.mul_(torch.rand(len(images), 1, 1, 1, generator=g))


@hookimpl
def mnistlab_models():
    return [Model(name="tiny", config=Tiny, build=build, summary="One hidden layer.")]


@hookimpl
def mnistlab_transforms():
    return [
        Transform(name="dim", config=Dim, build=dim, summary="Darkens."),
        Transform(name="rude", config=Dim, build=in_place, summary="Darkens in place."),
    ]
"""
CONTRACT = """
import inner_plugin
from mnistlab.testing import PluginContract

class TestContract(PluginContract):
    plugin = inner_plugin
    samples = 2
"""


LAB = '''
import os, random, signal
from pathlib import Path
import numpy, pytest, torch

BASE = """
name = "x"
[data]
dataset = "digits"
[model.mlp]
width = 32
[training]
epochs = 1
[search]
trials = 1
[confirm]
top = 0
"""


def process():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    generators = torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())
    return handlers, dict(os.environ), os.getcwd(), torch.get_num_threads(), generators


def test_a_mistake_is_what_its_user_sees(lab):
    assert Path.cwd() == lab.path
    ran = lab.run("check", lab.write("bad.toml", BASE.replace("mlp", "mpl")))
    assert ran.code == 2, ran
    assert "mlp" in ran.err
    assert "Traceback" not in ran.err
    missing = lab.run("check", "nowhere.toml")
    assert missing.code == 2
    assert "nowhere.toml" in missing.err
    with pytest.raises(LookupError, match="no run is stored in"):
        lab.last_run()


def test_training_leaves_no_trace(lab):
    torch.set_num_threads(2)
    lab.write("x.toml", BASE)
    before = process()
    ran = lab.run("train", "x.toml", "--threads", "1")
    assert ran.code == 0, ran
    assert "val_accuracy" in ran.out
    assert process() == before


def test_a_search_leaves_its_run_and_no_ray(lab):
    lab.write("x.toml", BASE)
    before = process()
    ran = lab.run("search", "x.toml", "--executor", "EXECUTOR")
    assert ran.code == 0, ran
    (trial,) = lab.last_run().trials
    assert trial.plan["model"]["config"]["width"] == 32
    assert process() == before
    assert lab.run("leaderboard", "--format", "csv").out.startswith("dataset,")  # bytes, past the stream of texts
    import ray

    assert not ray.is_initialized()


def test_the_last_one_has_left_nothing_behind():
    assert "MNISTLAB_CACHE" not in os.environ
    assert Path.cwd() == Path(__file__).parent
'''


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.chaos)])
def test_the_record_that_breaks_a_rule_fails_alone_and_the_lab_leaves_no_trace(
    executor: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MNISTLAB_CACHE")
    pytester.makepyfile(inner_plugin=PLUGIN, test_inner=CONTRACT, test_lab=LAB.replace("EXECUTOR", executor))
    done = by_pytest("-v", cwd=pytester.path)
    lines = done.stdout.splitlines()
    shown = pytest.LineMatcher(lines)
    shown.fnmatch_lines(
        [
            "*test_transform_leaves_its_input_alone?dim? PASSED*",
            "*test_transform_leaves_its_input_alone?rude? FAILED*",
            "*test_model_builds_everywhere_in_its_domain?tiny? PASSED*",
            "*test_model_takes_any_number_of_images?tiny-64? PASSED*",
            "*test_the_last_one_has_left_nothing_behind PASSED*",
            "*rude at Dim(strength=0.2) changes the images that it is given*",
        ]
    )
    shown.no_fnmatch_line("*test_optimizer_*")
    shown.no_fnmatch_line("*test_dataset_*")
    counts = pytest.RunResult.parse_summary_nouns(lines)
    assert counts["failed"] == 1, done.stdout
    assert counts.keys() == {"passed", "failed"}


IMPORTS = [
    ("import mnistlab.testing.fixtures", {"torch", "numpy", "ray", "pydantic"}),
    ("import mnistlab.plugins.registry, mnistlab.training.loop, mnistlab.cli.main", {"pytest", "mnistlab.testing"}),
]


@pytest.mark.parametrize(("line", "heavy"), IMPORTS)
def test_imports_stay_light(line, heavy):
    code = f"import sys; {line}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_without_pytest_the_kit_says_what_to_install():
    code = "import sys; sys.modules['pytest'] = None; import mnistlab.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "mnistlab.testing needs pytest: pip install 'mnistlab[testing]'" in done.stderr


def test_a_contract_that_does_not_exist_is_an_attribute_error():
    import mnistlab.testing

    assert {name for name in mnistlab.testing.__all__ if not isinstance(getattr(mnistlab.testing, name), type)} == set()
    with pytest.raises(AttributeError, match="no attribute 'ModelContrat'"):
        mnistlab.testing.ModelContrat  # noqa: B018
