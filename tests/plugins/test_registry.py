"""Real broken distributions (in `dists/`) are found through importlib.metadata and loaded; nothing is mocked."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import mnistlab
from mnistlab.api import ENTRY_POINT_GROUP, Config, Dataset, Model, Optimizer, Transform, hookimpl
from mnistlab.errors import PluginError
from mnistlab.plugins.discovery import Found, discover
from mnistlab.plugins.registry import Plugin, Registry, load
from tests.conftest import DISTS

BUILTIN_MODELS = {"mlp", "cnn", "lenet", "resnet", "vit"}


def plugin(registry: Registry, distribution: str) -> Plugin:
    (one,) = [p for p in registry.plugins if p.found.distribution == distribution]
    return one


# --- what is installed --------------------------------------------------------------------------------------------


def test_the_built_ins_come_through_the_entry_points(builtins):
    assert {o.name for o in builtins.offers("model") if o.distribution == "mnistlab"} == BUILTIN_MODELS
    assert {"adamw", "sgd", "adam", "muon"} <= {o.name for o in builtins.offers("optimizer")}
    assert {"digits", "mnist", "fashion-mnist", "kmnist", "idx"} <= {o.name for o in builtins.offers("dataset")}
    assert {"shift", "rotate", "elastic", "cutout", "noise"} <= {o.name for o in builtins.offers("transform")}
    assert builtins.versions()["mnistlab"] == mnistlab.__version__


def test_the_core_imports_no_built_in():
    root = Path(mnistlab.__file__).parent
    guilty = [
        f"{path.relative_to(root)}: {name}"
        for path in root.rglob("*.py")
        if "builtin" not in path.relative_to(root).parts
        for name in imported(path)
        if name.startswith("mnistlab.builtin")
    ]
    assert guilty == []


def imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def test_every_built_in_says_in_a_sentence_what_it_is(builtins):
    summaries = {o.qualified: o.record.summary for o in builtins.offers() if o.distribution == "mnistlab"}
    assert [name for name, text in summaries.items() if not re.fullmatch(r"\S.{10,110}\.", text)] == []


# --- one broken plugin hurts nobody else --------------------------------------------------------------------------

BROKEN = {
    "import-error": "ModuleNotFoundError: No module named 'a_package_that_is_nowhere'",
    "exits": "SystemExit: no licence",
    "unknown-hook": "implements unknown hook 'mnistlab_modles'; did you mean 'mnistlab_models'?",
    "wrong-signature": "Argument(s) {'colour'} are declared in the hookimpl but can not be found in the hookspec",
    "hook-raises": "RuntimeError: no GPU in this house",
    "no-hook": "implements no hook: a hook is a function marked @hookimpl; known: mnistlab_models",
    "not-a-list": "mnistlab_models returned str, not Model",
    "outside-domain": "wide-net.width = 99 lies outside its own domain: integer 1..8",
    "no-default": "net.width has a domain but no default",
    "refused-defaults": "odd-net: its defaults are refused by its own config: width must be odd",
    "mutable-config": "net: its config Net must stay frozen",
    "bad-name": "mnistlab_models: name 'My Net' must be 1 to 64 lower-case letters, digits and '-', beginning with",
    "two-of-a-name": "mnistlab_models offers two records named 'twin'",
}


def test_broken_plugins_are_listed_with_the_reason_and_the_others_work(with_plugins):
    registry = with_plugins(*BROKEN, "healthy", "no-metadata")
    for name, reason in BROKEN.items():
        one = plugin(registry, name)
        assert (one.status, one.offers, one.manager) == ("failed", (), None), name
        assert reason in one.reason
        assert "\n" not in one.reason
    assert {o.name for o in registry.offers("model")} == BUILTIN_MODELS | {"tiny-net"}
    assert not set(registry.versions()) & set(BROKEN)


def test_an_unknown_name_quotes_the_plugins_that_might_have_offered_it(with_plugins):
    registry = with_plugins("import-error", "other-api", "healthy")
    with pytest.raises(PluginError) as caught:
        registry.find("model", "tiny-nat")
    said = str(caught.value)
    assert said.startswith("no installed plugin offers model 'tiny-nat'; did you mean 'tiny-net'?; ")
    assert "import-error 1.0 (import_error_plugin) is failed: ModuleNotFoundError" in said
    assert "other-api 1.0 (other_api_plugin) is other API: written for mnistlab.v9; this mnistlab speaks" in said
    assert caught.value.exit_code == 5


def test_an_unknown_name_among_no_plugins_at_all_is_told_without_gaps():
    with pytest.raises(PluginError, match=r"^no installed plugin offers model 'cnn'$"):
        Registry(()).find("model", "cnn")


def test_plugins_are_sorted_however_the_path_is(with_plugins):
    one, other = with_plugins("healthy", "clash"), with_plugins("clash", "healthy")
    titles = [p.title for p in one.plugins]
    assert titles == sorted(titles) == [p.title for p in other.plugins]


SNAPSHOT = Path(__file__).parents[1] / "snapshots" / "plugin_messages.txt"


def test_what_is_said_of_each_distribution_is_what_was_written_down(with_plugins, builtins):
    """One line a distribution of `dists`; a message that is changed has to be meant."""
    installed = {p.found.distribution for p in builtins.plugins}
    ours = with_plugins(*(path.name for path in DISTS.iterdir())).plugins
    said = [f"{p.found.distribution!a} {p.status}: {p.reason}" for p in ours if p.found.distribution not in installed]
    assert sorted(said) == SNAPSHOT.read_text(encoding="utf-8").splitlines()


# --- not imported at all ------------------------------------------------------------------------------------------


@pytest.fixture
def mark(tmp_path, monkeypatch) -> Path:
    """A file that appears when one of the plugins that leave a mark is imported."""
    monkeypatch.setenv("MNISTLAB_TEST_MARK", str(tmp_path / "imported"))
    return tmp_path / "imported"


def test_a_plugin_for_another_api_is_listed_and_never_imported(with_plugins, mark):
    one = plugin(with_plugins("other-api"), "other-api")
    assert one.status == "other API"
    assert one.reason == "written for mnistlab.v9; this mnistlab speaks mnistlab.v1"
    assert not mark.exists()


@pytest.mark.parametrize("written", ["marks-plugin", "Marks.Plugin", "other, MARKS__plugin ,"])
def test_a_disabled_plugin_is_listed_and_never_imported(with_plugins, mark, monkeypatch, written):
    monkeypatch.setenv("MNISTLAB_DISABLE", written)
    one = plugin(with_plugins("marks"), "marks-plugin")
    assert (one.status, one.reason) == ("disabled", "named in MNISTLAB_DISABLE")
    assert not mark.exists()


def test_the_mark_shows_an_import(with_plugins, mark):
    assert plugin(with_plugins("marks"), "marks-plugin").status == "ok"
    assert mark.exists()


def test_discovery_imports_nothing(monkeypatch, mark, with_plugins):
    for name in ("marks", "exits"):
        monkeypatch.syspath_prepend(Path(__file__).parents[1] / "dists" / name)
    assert {"marks-plugin", "exits"} <= {f.distribution for f in discover()}
    assert not mark.exists()
    assert not {"marks_plugin", "exits_plugin"} & set(sys.modules)


# --- names --------------------------------------------------------------------------------------------------------


def test_a_clash_is_refused_only_where_the_bare_name_is_used(with_plugins):
    registry = with_plugins("clash")
    with pytest.raises(PluginError) as caught:
        registry.find("model", "cnn")
    assert str(caught.value) == (
        'model \'cnn\' is offered by 2 plugins; write one of: [model."clash:cnn"], [model."mnistlab:cnn"]; '
        "with --no-plugins only mnistlab:cnn is there"
    )
    assert registry.find("model", "clash:cnn").distribution == "clash"
    assert registry.find("model", "mnistlab:cnn").distribution == "mnistlab"
    assert registry.find("model", "mlp").distribution == "mnistlab"


class Empty(Config):
    pass


def nothing(*_: object) -> None:
    raise NotImplementedError


RECORDS = {
    "model": Model(name="twin", config=Empty, build=nothing, summary="A twin."),
    "optimizer": Optimizer(name="twin", config=Empty, build=nothing, summary="A twin."),
    "transform": Transform(name="twin", config=Empty, build=nothing, summary="A twin."),
    "dataset": Dataset(name="twin", config=Empty, prepare=nothing, load=nothing, summary="A twin."),
}


def twin(kind: str, distribution: str) -> Found:
    """A distribution that offers one record of that kind, all of them under the same name."""
    module = ModuleType(distribution)
    setattr(module, f"mnistlab_{kind}s", hookimpl(lambda: [RECORDS[kind]]))
    return Found(distribution, "1.0", "plugin", distribution, ENTRY_POINT_GROUP, lambda: module)


@pytest.mark.parametrize("kind", RECORDS)
def test_what_a_clash_says_to_write_can_be_pasted_into_an_experiment(kind):
    registry = load([twin(kind, "one"), twin(kind, "other")])
    with pytest.raises(PluginError) as caught:
        registry.find(kind, "twin")
    first, second = str(caught.value).partition("write one of: ")[2].split(", ")  # and not that a switch would help
    written = [tomllib.loads(text)[kind] for text in (first, second)]
    assert written == (["one:twin", "other:twin"] if kind == "dataset" else [{"one:twin": {}}, {"other:twin": {}}])
    assert registry.find(kind, "other:twin").distribution == "other"


@pytest.mark.parametrize("written", ["tiny-net", "healthy-plugin:tiny-net", "Healthy_Plugin:tiny-net"])
def test_a_distribution_is_named_as_indexes_compare_names(with_plugins, written):
    offer = with_plugins("healthy").find("model", written)
    assert (offer.qualified, offer.version) == ("healthy-plugin:tiny-net", "2.1")


def test_a_qualified_name_gets_a_qualified_hint(builtins):
    with pytest.raises(PluginError, match="did you mean 'mnistlab:cnn'"):
        builtins.find("model", "mnistlab:ccn")
