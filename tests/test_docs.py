"""Documents that can't rot: what they quote, list and show is held against the program."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import itertools
import re
import shlex
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel
from typer.testing import CliRunner

from mnistlab import events, store
from mnistlab.api import ENTRY_POINT_GROUP, AveragingStepper, Batch, DataPlace, ImageShape, Stepper, TrialRecord
from mnistlab.cli import plugins
from mnistlab.cli.main import app
from mnistlab.data import open_test, open_train, prepare_dataset
from mnistlab.errors import ExitCode, SpecError
from mnistlab.experiment import loader, spec
from mnistlab.experiment.forms import PLUGIN_TABLES
from mnistlab.experiment.space import TrainingConfig
from mnistlab.plugins import hookspecs, registry
from mnistlab.plugins.observers import Observers
from mnistlab.store import results
from mnistlab.store.metric import METRICS, Metric
from mnistlab.training.prediction import cross_entropy, point_prediction
from mnistlab.util.seal import opened

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted(
    [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").rglob("README.md")]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHAPE = ImageShape(1, 28, 28, 10)


def blocks(language: str) -> list[Any]:
    """Every fenced block of a language, as a test parameter named after its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text[: match.start()].count("\n") + 1
            if match[1] == language:
                found.append(pytest.param(match[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def text_of(page: str) -> str:
    return (REFERENCE / page).read_text(encoding="utf-8")


def rows(page: str) -> dict[str, list[str]]:
    """The other cells of each table row of a reference page, under each of the names in its first cell."""
    found: dict[str, list[str]] = {}
    for line in text_of(page).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("|") and len(cells) > 1:
            for name in re.findall(r"`([^`]+)`", cells[0]) or [cells[0]]:
                found[name] = cells[1:]
    return found


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# --- plugin examples ----------------------------------------------------------------------------------------------


def test_the_tutorial_plugin_is_shown_as_it_is() -> None:
    source = (ROOT / "plugins" / "mnistlab-hello" / "mnistlab_hello.py").read_text(encoding="utf-8")
    assert f"```python\n{source}```" in (ROOT / "docs" / "first-plugin.md").read_text(encoding="utf-8")


PLUGINS = [block for block in blocks("python") if "hookimpl" in block.values[0]]


def load_example(source: str, folder: Path, number: int = 0) -> registry.Plugin:
    """Import a plugin example from a file, as an installed package would be, and register it."""
    name = f"documented_plugin_{folder.name.replace('-', '_')}_{number}"
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    here = registry.Found(f"documented-{number}", "0.1.0", name, name, ENTRY_POINT_GROUP, lambda: module)
    (plugin,) = registry.load([here]).plugins
    return plugin


@pytest.fixture(scope="module")
def all_plugins(tmp_path_factory: pytest.TempPathFactory) -> registry.Registry:
    """The built-ins and every plugin that the documents show."""
    folder = tmp_path_factory.mktemp("examples")
    shown = [load_example(block.values[0], folder, number) for number, block in enumerate(PLUGINS)]
    known = {offer.name for offer in registry.installed().offers()}
    new = [plugin for plugin in shown if not known & {offer.name for offer in plugin.offers}]
    return registry.Registry((*registry.installed().plugins, *new))


@pytest.mark.parametrize("source", PLUGINS)
def test_every_plugin_example_registers_and_its_records_work(source: str, tmp_path: Path) -> None:
    plugin = load_example(source, tmp_path)
    assert (plugin.status, plugin.reason) == ("ok", "")
    for offer in plugin.offers:
        TRIALS[offer.kind](offer.record, tmp_path)
    if not plugin.offers:
        trial = TrialRecord(trial="0001", state="failed", plan={}, seed=0, metrics={}, message="no reason")
        observers = Observers(registry.Registry((plugin,)))
        assert [*observers.tell(trial), *observers.close()] == []
        assert "mnistlab_trial_finished" in source


def try_model(record: Any, _: Path) -> None:
    module, images = record.build(record.config(), SHAPE), torch.zeros(2, 1, 28, 28)
    assert module(images).shape == (2, 10)
    some = Batch(images=images, labels=torch.tensor([3, 4]), label_smoothing=0.0, train_count=2)
    value = (record.loss or cross_entropy)(module, some)
    value.backward()
    assert (value.ndim, any(p.grad is not None for p in module.parameters())) == (0, True)
    found = (record.predict or point_prediction)(module.eval(), images)
    assert found.logits.shape == (2, 10)
    assert all(measure.shape == (2,) for measure in found.measures.values())


def try_optimizer(record: Any, _: Path) -> None:
    module = torch.nn.Linear(3, 2)
    before = module.weight.detach().clone()
    stepper: Stepper = record.build(record.config(), module, 10)
    for _turn in range(2):
        stepper.zero_grad()
        module(torch.ones(4, 3)).square().sum().backward()
        stepper.step()
        stepper.load_state_dict(stepper.state_dict())
    assert not torch.equal(before, module.weight)
    if isinstance(stepper, AveragingStepper):
        trained = module.weight.detach().clone()
        for switch, same in ((stepper.eval, False), (stepper.eval, False), (stepper.train, True)):
            switch()
            assert torch.equal(trained, module.weight) == same


def try_transform(record: Any, _: Path) -> None:
    images = torch.rand(4, 1, 28, 28)
    changed = record.build(record.config(), SHAPE)(images, torch.Generator().manual_seed(0))
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    assert not torch.equal(changed, images)


def try_dataset(record: Any, folder: Path) -> None:
    place, config = DataPlace(data_dir=None, cache=folder, offline=True), record.config()
    info = prepare_dataset(record, config, place)
    for count, images in ((info.train_count, open_train), (info.test_count, open_test)):
        with opened():
            loaded = images(record, config, place)
        assert loaded.images.shape == (count, info.shape.channels, info.shape.height, info.shape.width)
        assert loaded.labels.max() < info.shape.classes == len(info.class_names)


TRIALS = {"model": try_model, "optimizer": try_optimizer, "transform": try_transform, "dataset": try_dataset}


TESTS = [block for block in blocks("python") if "mnistlab.testing" in block.values[0]]  # pytest runs: test_docs_typed


@pytest.mark.parametrize("source", [block for block in blocks("python") if block not in [*PLUGINS, *TESTS]])
def test_every_other_python_block_runs(source: str) -> None:
    exec(compile(source, "documentation", "exec"), {"__name__": "documentation"})


# --- experiments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", blocks("toml"))
def test_every_toml_block_is_an_experiment_or_declares_a_plugin(
    source: str, tmp_path: Path, all_plugins: registry.Registry
) -> None:
    table = tomllib.loads(source)
    if "project" in table:
        assert list(table["project"]["entry-points"]) == [ENTRY_POINT_GROUP]
        return
    path = tmp_path / "shown.toml"
    path.write_text(source, encoding="utf-8")
    assert loader.load(path, (), all_plugins).spec.name == table["name"]


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_experiment_loads(path: Path) -> None:
    assert loader.load(path, (), registry.installed()).spec.name == path.stem


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every key of the fixed part of a file, with its field."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= keys_of(kind, f"{prefix}{name}.")
        elif f"{prefix}{name}" not in ("data.settings", "training", *PLUGIN_TABLES):
            found[f"{prefix}{name}"] = field
    return found


IN_WORDS = {"none": None, "a sixth": 1 / 6}
KEYS = keys_of(spec.ExperimentSpec) | keys_of(TrainingConfig, "training.")


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_of_an_experiment_is_documented_with_its_default(key: str, tmp_path: Path) -> None:
    _values, written, _meaning = rows("experiment-file.md")[key]
    field = KEYS[key]
    if field.is_required():
        assert written == "required"
    elif written in IN_WORDS:
        assert field.default == IN_WORDS[written]
    else:
        given, left = load_minimal(tmp_path, [f"{key}={quoted(written)[0]}"]), load_minimal(tmp_path, [])
        assert given.space == left.space
        assert given.spec.model_copy(update={"training": {}}) == left.spec  # its table is in the space already


# What is said in words of the values of some keys: what is accepted at its edges, and what is not.
DURATIONS = (['"90s"', '"15m"', '"1h30m"', "0.001"], ["0", '"0s"', "-1", '"soon"'])
EDGES: dict[str, tuple[list[str], list[str]]] = {
    "name of a dataset": (['"digits"'], ['"digit"', "3"]),
    "above 0": (["1e-9"], ["0", "-1e-9"]),
    "see below": ([], ['"other"', '"TPE"']),
    "a metric, or a list of them": (['"val_loss"', '["val_loss"]'], ['"accuracy"', "[]"]),
    '`"90s"`, `"15m"`, `"1h30m"`, or seconds': DURATIONS,
    "a duration, as above": DURATIONS,
    '0, a share from 0.0001 to 1, a whole number, or `"auto"`': (
        ["0", "0.0001", "1", "7", '"auto"'],
        ["-1", "0.00009", "1.0001", '"most"'],
    ),
    "names of distributions": (['["mnistlab"]'], ['["nowhere"]', "3"]),
    "names of runs": (['"x-1"', '["x-1", "runs/x-2"]'], ["3"]),  # whether they are there is asked later
    "1 to 64 of `a-z 0-9 . _ -`": (['"a"', f'"{"a" * 64}"', '"0._-"'], ['""', f'"{"a" * 65}"', '"A"', '"a b"']),
}


def edges(values: str) -> tuple[list[str], list[str]]:
    """What the words for a key's values mean: what is accepted just inside them, what is refused just outside."""
    if values in EDGES:
        return EDGES[values]
    if found := re.fullmatch(r"whole number from (\d+)", values):
        low = int(found[1])
        return [str(low), str(10**9)], [str(low - 1), f"{low}.5", f"{low}.0"]
    if found := re.fullmatch(r"([\d,.]+) to ([\d,.]+)", values):
        low, high = (one.replace(",", "") for one in found.groups())
        if "." in low + high:
            return [low, high], [f"{float(low) - 1e-9:.9f}", f"{float(high) + 1e-9:.9f}"]
        return [low, high], [str(int(low) - 1), str(int(high) + 1)]
    words = values.replace("`", "").split(", ")
    assert all(word.startswith('"') or word in ("true", "false") for word in words), f"not understood: {values}"
    return words, ['"other"', "3"]


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_values_that_are_documented_are_those_that_are_accepted(key: str, tmp_path: Path) -> None:
    inside, outside = edges(rows("experiment-file.md")[key][0])
    for text in inside:
        load_minimal(tmp_path, [f"{key}={text}"])
    for text in outside:
        with pytest.raises(SpecError) as caught:
            load_minimal(tmp_path, [f"{key}={text}"])
        assert key in {fault.place for fault in caught.value.faults}, text


def load_minimal(folder: Path, overrides: list[str]) -> loader.Experiment:
    path = folder / "minimal.toml"
    path.write_text('name = "minimal"\n[model.mlp]\n', encoding="utf-8")
    return loader.load(path, overrides, registry.installed())


def test_the_experiment_page_lists_no_key_that_is_not_there() -> None:
    section = r"(data|training|search|resources|confirm|plugins)\.\w+"
    assert {name for name in rows("experiment-file.md") if re.fullmatch(section, name)} <= KEYS.keys()


@pytest.mark.parametrize("words", [get_args(spec.Algorithm), get_args(spec.Scheduler), METRICS])
def test_every_algorithm_scheduler_and_metric_is_documented(words: tuple[str, ...]) -> None:
    assert set(words) <= rows("experiment-file.md").keys()


@pytest.mark.parametrize("metric", METRICS)
def test_the_better_direction_of_every_metric_is_documented(metric: str) -> None:
    better = "higher" if Metric(metric).higher_is_better else "lower"
    assert rows("experiment-file.md")[metric][0] == better


# --- command line -------------------------------------------------------------------------------------------------

COMMANDS = [
    "",
    *(str(command.name or command.callback.__name__) for command in app.registered_commands),  # type: ignore[union-attr]
    *(str(group.typer_instance.info.name) for group in app.registered_groups),  # type: ignore[union-attr]
    *(f"{plugins.app.info.name} {name}" for name in plugins.COMMANDS),
]


def help_of(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="mnistlab")
    assert result.exit_code == 0
    return result.output.rstrip()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command or "mnistlab")
def test_the_help_of_every_command_is_quoted_as_it_is(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = f"Usage: mnistlab {command} ".replace("  ", " ") + "["
    shown = [match[2].rstrip() for match in FENCE.finditer(text_of("command-line.md")) if match[2].startswith(usage)]
    assert len(shown) == 1, f"command-line.md must quote the help of 'mnistlab {command}' once"
    real = help_of(command, monkeypatch)
    assert shown[0] == real, "\n".join(
        difflib.unified_diff(shown[0].splitlines(), real.splitlines(), "page", "program")
    )


@pytest.mark.parametrize("source", blocks("sh"))
def test_every_command_shown_knows_its_subcommand_and_options(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in source.splitlines():
        words = shlex.split(line, comments=True)
        programs = [i for i, word in enumerate(words) if word.endswith("mnistlab")]
        if not programs:
            continue
        command, *arguments = words[programs[0] + 1 :]
        if command == plugins.app.info.name:
            command = f"{command} {arguments.pop(0)}"
        assert command in COMMANDS, line
        known = re.findall(r"--[\w-]+", help_of(command, monkeypatch))
        assert {word.partition("=")[0] for word in arguments if word.startswith("--")} <= set(known), line


EXPERIMENTS = re.compile(r"mnistlab (?:search|train|check) (experiments/\S+\.toml)(.*)")


@pytest.mark.parametrize("source", [b for b in blocks("sh") if EXPERIMENTS.search(b.values[0])])
def test_every_command_on_a_shipped_experiment_loads_it_with_its_overrides(source: str) -> None:
    for match in EXPERIMENTS.finditer(source):
        words = shlex.split(match[2], comments=True)
        shortcuts = {"--trials": "search.trials", "--time-budget": "search.time_budget", "--seed": "seed"}
        named = {"--set": "{}"} | {option: f"{key}={{}}" for option, key in shortcuts.items()}
        pairs = itertools.pairwise(words)
        overrides = [named[option].format(value) for option, value in pairs if option in named]
        assert loader.load(ROOT / match[1], overrides, registry.installed()).spec.name


def test_every_make_target_shown_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = {word for block in blocks("sh") for word in re.findall(r"^make (\w+)", block.values[0], re.MULTILINE)}
    assert {"search", "test"} <= shown <= targets


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_documented(code: ExitCode) -> None:
    assert str(int(code)) in rows("command-line.md"), code.name


def test_no_exit_code_is_documented_that_is_not_there() -> None:
    assert {int(name) for name in rows("command-line.md") if name.isdigit()} == {int(code) for code in ExitCode}


def test_every_environment_variable_is_documented() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mnistlab").rglob("*.py"))
    used = set(re.findall(r"\bMNISTLAB_[A-Z_]+\b", sources))
    assert used == {name for name in rows("command-line.md") if name.startswith("MNISTLAB_")}


# --- run directory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", events.EVENT_TYPES.values(), ids=events.EVENT_TYPES)
def test_every_event_is_documented_with_its_keys(kind: type[events.Event]) -> None:
    _says, keys = rows("event-stream.md")[kind.type]
    assert quoted(keys) == [field.name for field in fields(kind)]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("trial", results.TrialResult),
        ("replicate", results.ReplicateResult),
        ("test", results.TestScore),
        ("cost", results.Cost),
    ],
)
def test_every_result_is_documented_with_its_keys(row: str, kind: Any) -> None:
    assert quoted(rows("run-directory.md")[row][0]) == [field.name for field in fields(kind)]


@pytest.mark.parametrize("schema", [events.SCHEMA, store.RUN_SCHEMA, store.RESULT_SCHEMA, store.LEDGER_SCHEMA])
def test_every_format_is_documented(schema: str) -> None:
    assert f"Format `{schema}`" in text_of("run-directory.md")


# --- plugin interface ---------------------------------------------------------------------------------------------

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("mnistlab_")}


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_heading_with_its_exact_arguments(name: str) -> None:
    arguments = ", ".join(inspect.signature(HOOKS[name]).parameters)
    assert f"\n### `{name}({arguments})`\n" in text_of("plugin-interface.md")


def test_every_hook_has_an_example() -> None:
    shown = "".join(block.values[0] for block in PLUGINS)
    assert [name for name in HOOKS if f"def {name}(" not in shown] == []


# --- links --------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target
