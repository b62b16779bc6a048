"""Models that leave: what is written says the same as the model did, carries what it needs, and hides nothing."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

import mnistlab
from mnistlab.api import ImageShape, Prediction
from mnistlab.errors import DataError, MnistlabError, PluginError
from mnistlab.plugins.registry import installed
from mnistlab.trained import formats
from mnistlab.trained.export import refuse_other
from mnistlab.trained.formats import READ
from mnistlab.trained.formats.onnx import MissingExtraError
from mnistlab.trained.portable import (
    About,
    CannotExportError,
    Exported,
    Portable,
    about_from,
    agreement,
    ask_of,
    probabilities,
)
from tests.trained.conftest import plan_of
from tests.trained.drawing import drawn
from tests.trained.runs import change, finished_run, typed

pytestmark = pytest.mark.simulated

KINDS = (".pt2", ".onnx", ".safetensors")
SHAPE = ImageShape(1, 28, 28, 10)


def needs_extra(suffix: str) -> None:
    if suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason="needs the extra mnistlab[export]")


def about_of(**changes: object) -> About:
    body: dict[str, object] = {
        "schema": "mnistlab.model/1",
        "shape": [1, 28, 28],
        "classes": list("0123456789"),
        "label": "x",
        "framing": {"box": 20, "centre": [14.5, 14.5], "light": True},
        "mean": [0.1],
        "std": [0.3],
        "plan": {},
        "source": {},
        "dataset": {},
        "validation": {},
        "test": None,
        "versions": {},
    }
    return About.model_validate(body | changes)


def portable(module: nn.Module, predict=None) -> Portable:
    mean, std = torch.full((1, 1, 1, 1), 0.1), torch.full((1, 1, 1, 1), 0.3)
    return Portable(module, predict or (lambda inner, images: Prediction(logits=inner(images))), mean, std).eval()


def read_back(path: Path) -> Exported:
    """Load a model as its reader would, a `.pt2` by torch alone."""
    if path.suffix in READ:
        return formats.read(path.read_bytes(), path.name, installed)
    extra = {"mnistlab.json": ""}
    program = torch.export.load(str(path), extra_files=extra)
    return Exported(about_from(extra["mnistlab.json"], path.name), ask_of(program.module()))


@pytest.fixture(scope="module")
def leave(small_run, tmp_path_factory):
    """Export the small run's champion once in each kind."""
    folder, made = tmp_path_factory.mktemp("left"), {}

    def one(suffix: str) -> Path:
        needs_extra(suffix)
        if suffix not in made:
            code, text = typed("export", small_run, "-o", folder / f"model{suffix}")
            assert code == 0, text
            made[suffix] = text
        return folder / f"model{suffix}"

    return one


# --- what is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", KINDS)
def test_what_is_read_back_is_the_model_with_any_number_of_images(suffix, leave, small_run):
    back = read_back(leave(suffix))
    assert back.about.classes == tuple("0123456789")
    result = json.loads((small_run / "trials/0000/replicates/1/result.json").read_text())
    assert back.about.source["seed"] == result["seed"]  # the first replicate, whichever did better on the test set
    assert back.about.source["weights_sha256"] == result["weights_sha256"]
    pixels = np.random.default_rng(0).random((7, 1, 28, 28), dtype=np.float32)
    whole = back.ask(pixels)
    assert (whole.shape, whole.dtype) == ((7, 10), np.float32)
    for count in (1, 2, 5):
        assert np.allclose(back.ask(pixels[:count]), whole[:count], atol=1e-4)
    assert np.allclose(probabilities(whole).sum(axis=1), 1)


@pytest.mark.parametrize("suffix", KINDS)
def test_all_kinds_say_the_same(suffix, leave):
    one, other = read_back(leave(suffix)), read_back(leave(".safetensors"))
    pixels = np.random.default_rng(1).random((20, 1, 28, 28), dtype=np.float32)
    assert np.abs(one.ask(pixels) - other.ask(pixels)).max() < 1e-3
    assert one.about == other.about


def test_the_command_says_how_well_the_file_agrees_with_the_run(small_run, tmp_path):
    code, text = typed("export", small_run, "0", "-o", tmp_path / "m.safetensors", "--replicate", 2)
    assert code == 0
    result = json.loads((small_run / "trials/0000/replicates/2/result.json").read_text())
    right = round(result["metrics"]["val_accuracy"] * 300)
    assert f"Read back, it classifies {right} of 300 validation images correctly (the same)" in text
    assert "probabilities differ by at most 0.0e+00" in text
    with safe_open(tmp_path / "m.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["mnistlab"])["source"]["replicate"] == 2
        assert {"mean", "std"} < set(file.keys())


def test_onnx_runs_without_torch_or_mnistlab(leave):
    path = leave(".onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": np.zeros((3, 1, 28, 28), np.float32)})
    assert logits.shape == (3, 10)
    assert session.get_modelmeta().custom_metadata_map["classes"] == "\n".join("0123456789")


def test_pt2_is_what_torch_alone_loads(leave):
    program = torch.export.load(str(leave(".pt2"))).module()
    assert program(torch.zeros(4, 1, 28, 28)).shape == (4, 10)


@pytest.mark.parametrize("suffix", KINDS)
def test_the_card_holds_the_figures_of_the_run_and_loads_the_model(suffix, leave, small_run):
    path = leave(suffix)
    card = path.with_name(f"{path.name}.md").read_text()
    result = json.loads((small_run / "trials/0000/replicates/1/result.json").read_text())
    assert f"{result['test']['correct']} of 500: " in card
    assert f"sha256 `{result['weights_sha256']}`" in card
    assert "95 % interval" in card
    assert "over 2 fresh seeds" in card
    assert "this is the first that succeeded" in " ".join(card.split())
    assert not [
        line for line in card.splitlines() if len(line) > 120 and not line.startswith(("|", '  "', "logits", "model ="))
    ]
    code = card.split("```python\n")[1].split("```")[0].replace(f'"{path.name}"', repr(str(path)))
    array = np.zeros((2, 1, 28, 28), np.float32)
    names = {"images": torch.from_numpy(array) if suffix == ".pt2" else array}
    exec(code, names)
    assert names["logits"].shape == (2, 10)  # type: ignore[attr-defined]


# --- what is refused ----------------------------------------------------------------------------------------------


def test_nothing_is_written_over_unless_asked(small_run, tmp_path):
    target = tmp_path / "m.safetensors"
    target.write_text("mine")
    code, text = typed("export", small_run, "-o", target)
    assert (code, text) == (2, f"{target} is there already; --force writes over it")
    assert target.read_text() == "mine"
    code, _ = typed("export", small_run, "-o", target, "--force")
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "m.safetensors.md"]


@pytest.mark.parametrize(
    ("name", "message"), [("m.pkl", "must end with .pt2, .onnx, .safetensors"), ("no/m.pt2", "there is no folder")]
)
def test_a_place_that_can_t_be_written_is_refused_at_once(name, message, small_run, tmp_path):
    code, text = typed("export", small_run, "-o", tmp_path / name)
    assert code == 2
    assert message in text


def test_damaged_weights_are_not_exported(own_run, tmp_path):
    (own_run / "trials/0000/replicates/1/weights.safetensors").write_bytes(b"other")
    code, text = typed("export", own_run, "-o", tmp_path / "m.pt2")
    assert code == 6
    assert "weights.safetensors is damaged: its sha256" in text
    assert not list(tmp_path.glob("m.pt2*"))


def test_a_trial_without_weights_is_refused_with_those_that_have_some(own_run, tmp_path):
    other = json.loads((own_run / "trials/0000/result.json").read_text()) | {"trial": "0001", "number": 1}
    (own_run / "trials/0001").mkdir()
    (own_run / "trials/0001/result.json").write_text(json.dumps(other))
    code, text = typed("export", own_run, "1", "-o", tmp_path / "m.pt2")
    assert code == 2
    assert "weights are kept of confirmed plans only, and this run has those of trial 0000" in text


def test_a_model_of_another_plugin_version_is_refused(own_run, tmp_path):
    change(own_run / "trials/0000/result.json", lambda trial: trial["plan"]["model"].update(version="9.9"))
    code, text = typed("export", own_run, "-o", tmp_path / "m.pt2")
    assert code == 5
    assert "but the run had 9.9" in text


class Branching(nn.Linear):
    def forward(self, images):
        logits = super().forward(images.flatten(1))
        return logits if float(logits.sum()) > 0 else -logits


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_model_that_branches_on_values_is_refused_in_words(suffix):
    needs_extra(suffix)
    with pytest.raises(CannotExportError, match=r"can't write this model down: .*branch on computed values"):
        formats.write(portable(Branching(784, 10)), about_of(), suffix)


def test_a_model_that_draws_at_random_is_refused():
    def noisy(inner, images):
        return Prediction(logits=inner(images) + torch.randn(len(images), 10))

    module, pixels = portable(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), noisy), np.zeros((50, 1, 28, 28), "f4")
    ask, labels = ask_of(module), np.zeros(50, np.int64)
    with pytest.raises(CannotExportError, match="may draw at random"):
        refuse_other(agreement(ask(pixels), ask(pixels), labels))
    still = ask_of(portable(nn.Sequential(nn.Flatten(), nn.Linear(784, 10))))
    found = agreement(still(pixels), still(pixels), labels)
    refuse_other(found)
    assert (found.logits_apart, found.images) == (0, 50)


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"'onnx' can't be imported .*pip install 'mnistlab\[export\]'"):
        formats.write(portable(nn.Sequential(nn.Flatten(), nn.Linear(784, 10))), about_of(), ".onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="'onnxruntime' can't be imported"):
        formats.read(b"", "m.onnx", installed)


@pytest.mark.parametrize("suffix", READ)
@pytest.mark.parametrize("noise", [b"", b"junk", b"PK\x03\x04", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_that_is_no_model_is_refused_in_words(suffix, noise):
    needs_extra(suffix)
    with pytest.raises(DataError, match=f"^m{suffix} is"):
        formats.read(noise, f"m{suffix}", installed)


@pytest.mark.parametrize("suffix", READ)
def test_a_file_cut_short_is_refused_in_words(suffix, leave):
    path = leave(suffix)
    with pytest.raises(DataError, match=f"^{path.name} is"):
        formats.read(path.read_bytes()[:-5000], path.name, installed)


@pytest.mark.parametrize(
    "changes",
    [{"shape": [1, 10**9, 28]}, {"classes": ["a"]}, {"schema": "mnistlab.model/9"}, {"framing": {"box": 0}}],
)
def test_metadata_that_no_export_writes_are_refused(changes):
    body = json.loads(about_of().text()) | changes
    with pytest.raises(DataError, match=r"m\.pt2 is no model that mnistlab exported"):
        about_from(json.dumps(body), "m.pt2")


# --- a .pt2, which can hold code ----------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (sys.exit, ("code from a file was run",))


def with_code(path: Path) -> bytes:
    """The archive, in which a pickle takes the place of the sample inputs."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as after:
        for entry in before.namelist():
            evil = entry.endswith("/data/sample_inputs/model.pt")
            after.writestr(entry, pickle.dumps(Evil(), protocol=2) if evil else before.read(entry))
    return out.getvalue()


def test_what_export_writes_holds_nothing_pickled(leave):
    with zipfile.ZipFile(leave(".pt2")) as archive:
        assert not [name for name in archive.namelist() if archive.read(name)[:2] in (b"\x80\x02", b"\x80\x04")]


@pytest.mark.parametrize("changed", [with_code, Path.read_bytes])
def test_a_pt2_is_not_read_whoever_made_it(changed, leave, tmp_path):
    file = tmp_path / "m.pt2"
    file.write_bytes(changed(leave(".pt2")))
    for reading in (lambda: formats.read(file.read_bytes(), str(file), installed), lambda: mnistlab.load_model(file)):
        with pytest.raises(DataError, match=r"is not read, for a \.pt2 can hold code"):
            reading()
    drawn(3).save(tmp_path / "three.png")
    assert typed("predict", file, tmp_path / "three.png") == (
        5,
        f"{file} is not read, for a .pt2 can hold code: export it as .onnx or .safetensors, or load it with "
        "torch.export.load yourself if you trust the file",
    )


def test_that_would_run_code(leave):
    with pytest.raises(SystemExit, match="code from a file was run"):
        torch.export.load(io.BytesIO(with_code(leave(".pt2"))))


@pytest.mark.parametrize("suffix", KINDS)
def test_a_model_that_is_read_back_as_another_is_not_written(suffix, small_run, tmp_path, monkeypatch):
    needs_extra(suffix)

    def of_another(module: Portable, about: About) -> bytes:
        other = deepcopy(module)
        for weights in other.parameters():
            weights.data.neg_()
        return kind.write(other, about)

    kind = formats.format_of(suffix)
    monkeypatch.setattr(f"mnistlab.trained.formats.{suffix[1:]}.FORMAT", replace(kind, write=of_another))
    code, text = typed("export", small_run, "-o", tmp_path / f"m{suffix}")
    assert (code, text.partition(":")[0]) == (5, "the exported model is not the one that was trained")
    assert not list(tmp_path.iterdir())


# --- from Python --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", READ)
def test_a_model_is_loaded_from_python(suffix, leave):
    model = mnistlab.load_model(str(leave(suffix)))
    pixels = np.random.default_rng(2).random((3, 1, 28, 28), dtype=np.float32)
    assert np.array_equal(model.ask(pixels), read_back(leave(suffix)).ask(pixels))
    assert (model.about.shape, model.about.classes) == ((1, 28, 28), tuple("0123456789"))


def test_what_is_no_model_is_refused_from_python(tmp_path):
    with pytest.raises(MnistlabError, match=r"^can't read .*no\.onnx: No such file"):
        mnistlab.load_model(tmp_path / "no.onnx")
    (tmp_path / "model.zip").write_bytes(b"")
    with pytest.raises(MnistlabError, match=r"its name must end with \.onnx or \.safetensors"):
        mnistlab.load_model(tmp_path / "model.zip")
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(formats.MAX_MODEL_BYTES + 1)
    with pytest.raises(MnistlabError, match="a model has at most 2 GiB"):
        mnistlab.load_model(tmp_path / "large.onnx")


def test_a_model_of_a_plugin_file_is_loaded_with_it(tmp_path):
    source = tmp_path / "mnistlab_own.py"
    source.write_text(OWN_MODEL)
    run = finished_run(tmp_path, OWN, plugins=(source,))
    code, text = typed("export", run, "-o", tmp_path / "m.safetensors", "--plugin", source)
    assert code == 0, text
    model = mnistlab.load_model(tmp_path / "m.safetensors", plugins=[str(source)], no_plugins=True)
    assert model.ask(np.zeros((1, 1, 28, 28), np.float32)).shape == (1, 10)
    with pytest.raises(PluginError, match="flat"):
        mnistlab.load_model(tmp_path / "m.safetensors", no_plugins=True)


@pytest.mark.parametrize("module", ["mnistlab.registry", "mnistlab.plugins.registry"])
def test_what_cards_of_earlier_versions_say_goes_on_working(module, leave):
    names = {"images": np.zeros((2, 1, 28, 28), np.float32), "name": str(leave(".safetensors"))}
    code = f"""from {module} import installed
from mnistlab.trained.formats import read
model = read(open(name, "rb").read(), name, installed)
logits = model.ask(images)"""
    exec(code, names)
    assert names["logits"].shape == (2, 10)  # type: ignore[attr-defined]


OWN_MODEL = """
from torch import nn
from mnistlab.api import Config, Model, hookimpl

class Nothing(Config):
    pass

def build(config, shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.pixels, shape.classes))

@hookimpl
def mnistlab_models():
    return [Model(name="flat", config=Nothing, build=build, summary="One layer.")]
"""
OWN = """
name = "own"
[data]
dataset = "digits"
validation = 300
[model.flat]
[training]
epochs = 1
[confirm]
seeds = 1
"""


# --- strangers' names ---------------------------------------------------------------------------------------------

EVIL_NAMES = """
import numpy as np
from mnistlab.api import Config, Dataset, DatasetInfo, ImageShape, LabelledImages, hookimpl

class Nothing(Config):
    pass

def load(config, place, split):
    labels = np.arange(60) % 2
    images = np.zeros((60, 1, 8, 8), np.uint8)
    images[labels == 1, :, 2:6, 2:6] = 200
    images[labels == 0, :, 3:5] = 200
    return LabelledImages(images=images, labels=labels.astype(np.int64))

def prepare(config, place):
    names = ("<script>alert(1)</script>", "```\\n# [x](javascript:1) | \\x1b[31m")
    return DatasetInfo(shape=ImageShape(1, 8, 8, 2), class_names=names, train_count=60, test_count=60, source="x")

@hookimpl
def mnistlab_datasets():
    return [Dataset(name="evil", config=Nothing, prepare=prepare, load=load, summary="Names that are markup.")]
"""
EVIL = """
name = "evil"
[data]
dataset = "evil"
validation = 20
[model.mlp]
depth = 1
width = 32
[training]
epochs = 1
[confirm]
seeds = 1
"""


def test_hostile_class_names_stay_inert_in_card_and_answers(tmp_path):
    source = tmp_path / "evil_data.py"
    source.write_text(EVIL_NAMES)
    run = finished_run(tmp_path, EVIL, plugins=(source,))
    code, text = typed("export", run, "-o", tmp_path / "m.safetensors", "--plugin", source)
    assert code == 0, text
    card = (tmp_path / "m.safetensors.md").read_text()
    fences = card.split("```")
    assert all("<script>" not in piece for piece in fences[::2])  # only inside fenced blocks, as JSON
    assert "\x1b" not in card
    drawn(8).save(tmp_path / "x.png")
    code, text = typed("predict", "--no-plugins", tmp_path / "m.safetensors", tmp_path / "x.png")
    assert code == 0, text
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


def test_a_plan_of_the_registry_here_is_needed_for_safetensors(own_plugins):
    plan = plan_of(own_plugins)
    plan["model"] = {**plan["model"], "version": "0.0.0"}  # type: ignore[dict-item]
    offer = own_plugins.find("model", "mnistlab:cnn")
    module = portable(offer.record.build(offer.record.config(depth=2, channels=16), SHAPE))
    data = formats.write(module, about_of(plan=plan), ".safetensors")
    with pytest.raises(PluginError, match=r"but the plan was made with 0\.0\.0"):
        formats.read(data, "m.safetensors", lambda: own_plugins)
