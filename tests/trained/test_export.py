"""Models that leave: what is written says the same as the model did, carries what it needs, and hides nothing."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from mnistlab.api import ImageShape, Prediction
from mnistlab.errors import DataError
from mnistlab.plugins.registry import installed
from mnistlab.trained import formats, pt2_check
from mnistlab.trained.export import refuse_other
from mnistlab.trained.portable import About, CannotExportError, Portable, agreement, ask_of, probabilities
from mnistlab.trained.pt2_check import check_pt2
from tests.trained.conftest import plan_of
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
    path = leave(suffix)
    back = formats.read(path.read_bytes(), path.name, installed)
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
    one, other = (formats.read(p.read_bytes(), p.name, installed) for p in (leave(suffix), leave(".safetensors")))
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
    with pytest.raises(formats.MissingExtraError, match=r"'onnx' can't be imported .*pip install 'mnistlab\[export\]'"):
        formats.write(portable(nn.Sequential(nn.Flatten(), nn.Linear(784, 10))), about_of(), ".onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(formats.MissingExtraError, match="'onnxruntime' can't be imported"):
        formats.read(b"", "m.onnx", installed)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("noise", [b"", b"junk", b"PK\x03\x04", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_that_is_no_model_is_refused_in_words(suffix, noise):
    needs_extra(suffix)
    with pytest.raises(DataError, match=f"^m{suffix} is"):
        formats.read(noise, f"m{suffix}", installed)


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_cut_short_is_refused_in_words(suffix, leave):
    path = leave(suffix)
    with pytest.raises(DataError, match=f"^{path.name} is"):
        formats.read(path.read_bytes()[:-5000], path.name, installed)


@pytest.mark.parametrize(
    "changes",
    [{"shape": [1, 10**9, 28]}, {"classes": ["a"]}, {"schema": "mnistlab.model/9"}, {"framing": {"box": 0}}],
)
def test_metadata_that_no_export_writes_are_refused(changes):
    from mnistlab.trained.portable import about_from

    body = json.loads(about_of().text()) | changes
    with pytest.raises(DataError, match=r"m\.pt2 is no model that mnistlab exported"):
        about_from(json.dumps(body), "m.pt2")


# --- a .pt2 that would run code -----------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (sys.exit, ("code from a file was run",))


def tampered(path: Path, name: str, content: bytes) -> bytes:
    """The archive with one part replaced or added."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as after:
        root = before.namelist()[0].split("/")[0]
        for entry in before.namelist():
            if entry != f"{root}/{name}":
                after.writestr(entry, before.read(entry))
        after.writestr(name if name == "version" else f"{root}/{name}", content)
    return out.getvalue()


def part(path: Path, name: str) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{archive.namelist()[0].split('/')[0]}/{name}").decode()


def test_what_export_writes_passes_and_holds_nothing_pickled(leave):
    path = leave(".pt2")
    check_pt2(path.read_bytes(), path.name)
    check_pt2(tampered(path, "models/model.json", part(path, "models/model.json").encode()), "rewritten")
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if archive.read(name)[:2] in (b"\x80\x02", b"\x80\x04")]


@pytest.mark.parametrize(
    "name", ["data/sample_inputs/model.pt", "data/constants/custom_obj_0", "data/weights/model.pt"]
)
def test_a_pickle_inside_is_refused_and_not_read(name, leave):
    with pytest.raises(DataError, match="is not read: it holds"):
        formats.read(tampered(leave(".pt2"), name, pickle.dumps(Evil())), "evil.pt2", installed)


def test_the_old_format_that_torch_falls_back_to_is_refused(leave):
    with pytest.raises(DataError, match="old format that torch unpickles"):
        formats.read(tampered(leave(".pt2"), "version", b"1.1"), "evil.pt2", installed)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("data/weights/model_weights_config.json", '"use_pickle": false', '"use_pickle": true'),
        ("data/weights/model_weights_config.json", '"weight_0"', '"../../x"'),
        ("models/model.json", "Symbol('s", "__import__('os').system('s"),
        ("models/model.json", "torch.ops.aten.sub.Tensor", "torch.os.system"),
    ],
)
def test_a_graph_that_asks_for_more_than_arithmetic_is_refused(file, old, new, leave):
    path = leave(".pt2")
    text = part(path, file)
    assert old in text
    with pytest.raises(DataError, match="is not read: it holds"):
        formats.read(tampered(path, file, text.replace(old, new).encode()), "evil.pt2", installed)


SIZE = "Symbol('s34', positive=True, integer=True)"


@pytest.mark.parametrize(
    "text",
    [
        "Pow(Integer(9), Pow(Integer(9), Pow(Integer(9), Integer(9))))",
        "Pow(Pow(Symbol('s34'), Integer(8)), Integer(8))",
        "Pow(Integer(2), Symbol('s34'))",
        "Pow(Integer(10), Integer(999999999))",
        "9**9**9**9",
        "Integer(" + "9" * 13 + ")",
        "Add(" + "Integer(1), " * 200 + "Integer(1))",
        "Mul(",
    ],
)
def test_a_size_that_would_be_evaluated_for_ever_is_refused(text):
    assert not pt2_check._harmless(text)


@pytest.mark.parametrize(
    "text", [SIZE, f"Mul(Integer(3136), {SIZE})", f"Pow({SIZE}, Integer(2))", "Mul(Integer(4), Pow(s34, Integer(-1)))"]
)
def test_a_size_as_exports_write_it_passes(text):
    assert pt2_check._harmless(text)


def graph_with(path: Path, **changes: Any) -> bytes:
    """The archive with keys of its graph changed: of the first step's first input, or of the graph as a whole."""
    graph = json.loads(part(path, "models/model.json"))
    for key, value in changes.items():
        if key == "guards_code":
            graph[key] = value
        else:
            graph["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {key: value}
    return tampered(path, "models/model.json", json.dumps(graph).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"as_int": 2**40},
        {"as_int": -(2**63)},
        {"as_int": "7"},
        {"as_ints": [2**15, 2**15]},
        {"as_ints": [1, 2**40]},
        {"guards_code": ["__import__('os').system('true') == 0"]},
        {"guards_code": ["L['images'].size()[0] == exit()"]},
        {"guards_code": "L['images'].size()[0] == 3"},
    ],
)
def test_a_graph_that_asks_for_all_memory_or_for_code_is_refused(changes, leave):
    with pytest.raises(DataError, match=r"is not read: it holds a (number|condition)"):
        formats.read(graph_with(leave(".pt2"), **changes), "evil.pt2", installed)


def test_a_graph_of_endless_steps_is_refused():
    assert list(pt2_check._graph_faults({"nodes": [0] * 100_001})) == ["a graph of more than 100000 steps"]
    assert list(pt2_check._graph_faults({"nodes": [0] * 1_000})) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"as_int": 2**63 - 1},
        {"as_ints": [1, 3136]},
        {"as_ints": [-1, 16, 28, 28]},
        {"guards_code": ["L['images'].size()[0] >= 1"]},
    ],
)
def test_numbers_and_conditions_as_exports_write_them_pass(changes, leave):
    check_pt2(graph_with(leave(".pt2"), **changes), "m.pt2")


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
    code, text = typed("export", run, "-o", tmp_path / "m.pt2", "--plugin", source)
    assert code == 0, text
    card = (tmp_path / "m.pt2.md").read_text()
    fences = card.split("```")
    assert all("<script>" not in piece for piece in fences[::2])  # only inside fenced blocks, as JSON
    assert "\x1b" not in card
    from tests.trained.drawing import drawn

    drawn(8).save(tmp_path / "x.png")
    code, text = typed("predict", tmp_path / "m.pt2", tmp_path / "x.png")
    assert code == 0, text
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


def test_a_plan_of_the_registry_here_is_needed_for_safetensors(own_plugins):
    plan = plan_of(own_plugins)
    plan["model"] = {**plan["model"], "version": "0.0.0"}  # type: ignore[dict-item]
    offer = own_plugins.find("model", "mnistlab:cnn")
    module = portable(offer.record.build(offer.record.config(depth=2, channels=16), SHAPE))
    data = formats.write(module, about_of(plan=plan), ".safetensors")
    from mnistlab.errors import PluginError

    with pytest.raises(PluginError, match=r"but the plan was made with 0\.0\.0"):
        formats.read(data, "m.safetensors", lambda: own_plugins)
