"""Which plugins take part is decided before anything is imported; a single file is a plugin like any other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mnistlab.errors import PluginError, SpecError
from mnistlab.experiment import loader
from mnistlab.plugins.discovery import Found, Selection, SourceFile, _field, selection
from mnistlab.plugins.registry import Plugin, load, select
from tests.conftest import DISTS

FILE = """
from __future__ import annotations
from typing import Annotated
from torch import nn
from mnistlab.api import Config, ImageShape, Int, Model, hookimpl

class Tiny(Config):
    width: Annotated[int, Int(8, 64)] = 16

def build(config: Tiny, shape: ImageShape) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.pixels, shape.classes))

@hookimpl
def mnistlab_models():
    return [Model(name=NAME, config=Tiny, build=build, summary="A single layer.")]
""".replace("NAME", '"tiny-net"')


def one(source: str, name: str = "my_model.py") -> Plugin:
    (plugin,) = load([SourceFile(name, f"folder/{name}", source).found()]).plugins
    return plugin


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_a_plugin_whose_version_is_its_content(tmp_path):
    path = tmp_path / "my_model.py"
    path.write_text(FILE)
    registry = select(selection([path]))
    offer = registry.find("model", "my_model.py:tiny-net")
    assert offer == registry.find("model", "tiny-net") == registry.find("model", "my-model-py:tiny-net")
    assert offer.qualified == "my_model.py:tiny-net"
    assert offer.version == one(FILE).offers[0].version != one(FILE + "\n").offers[0].version
    assert registry.versions()["my_model.py"] == offer.version
    assert registry.selection.files[0].source == FILE


def test_a_file_can_look_its_own_names_up():
    config = one(FILE).offers[0].record.config
    assert sys.modules[config.__module__].Tiny is config


def test_every_file_that_is_no_plugin_is_told_at_once(tmp_path):
    (tmp_path / "my_model.py").write_text(FILE)
    (tmp_path / "latin.py").write_bytes(b"# \xff")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my_model.py").write_text(FILE)
    wrong = ["my_modle.py", "no-module.py", "latin.py", "my_model.py", "sub/my_model.py"]
    with pytest.raises(PluginError) as caught:
        selection([tmp_path / name for name in wrong])
    missing, name, latin, twice = str(caught.value).replace(str(tmp_path), "@").splitlines()
    assert missing == "--plugin @/my_modle.py: does not exist; did you mean 'my_model.py'?"
    assert name == "--plugin @/no-module.py: the file's name must be a module's, for example my_model.py"
    assert latin.startswith("--plugin @/latin.py: must be UTF-8: ")
    assert twice == "--plugin: two files are named 'my_model.py'"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def broken(:", "SyntaxError: invalid syntax (my_model.py, line 1)"),
        ("import sys; sys.exit('not today')", "SystemExit: not today"),
        ("x = 1", "implements no hook: a hook is a function marked @hookimpl; known: mnistlab_models"),
    ],
)
def test_a_file_that_can_not_be_loaded_ends_the_command(tmp_path, source, reason):
    path = tmp_path / "my_model.py"
    path.write_text(source)
    with pytest.raises(PluginError) as caught:
        select(selection([path]))
    assert str(caught.value).startswith(f"--plugin {path}: {reason}")


# --- names that are shown everywhere --------------------------------------------------------------------------------

EVIL = ["[red]net[/red]", "\x1b[31mnet", "../net", "a/b", "a\\b", "<b>net</b>", "net\n", "Net", "-net", "", "n" * 65, 7]


@pytest.mark.parametrize("name", EVIL, ids=repr)
def test_a_record_with_an_evil_name_is_refused(name):
    plugin = one(FILE.replace('"tiny-net"', repr(name)))
    rule = "must be 1 to 64 lower-case letters, digits and '-', beginning with a letter"
    assert plugin.status == "failed"
    assert plugin.reason.startswith("mnistlab_models: name ")
    assert plugin.reason.endswith(rule)
    assert plugin.reason.isprintable()


@pytest.mark.parametrize("summary", ["", "\x1b[2J", "two\nlines", None], ids=repr)
def test_a_record_with_an_evil_summary_is_refused(summary):
    plugin = one(FILE.replace('"A single layer."', repr(summary)))
    assert plugin.reason == f"tiny-net: its summary {summary!r} must be one line of plain text"


def test_a_record_whose_build_is_no_function_is_refused():
    assert one(FILE.replace("build=build", "build=3")).reason == "tiny-net: its build 3 must be a function"
    assert one(FILE.replace("build=build", "build=build, loss=3")).reason == "tiny-net: its loss 3 must be a function"
    assert one(FILE.replace("build=build", "build=build, loss=None")).status == "ok"


@pytest.mark.parametrize("portfolio", ["3", '"adamw"', "[3]", "[{3: 4}]", '[{"optimizer": None}]', '[{"a": [1]}]'])
def test_a_portfolio_of_something_else_than_plans_is_refused(portfolio):
    rule = 'must be plans such as {"optimizer": "adamw", "optimizer.adamw.lr": 0.003}'
    plugin = one(FILE.replace("build=build", f"build=build, portfolio={portfolio}"))
    assert plugin.reason.startswith("tiny-net: its portfolio ")
    assert plugin.reason.endswith(rule)


@pytest.mark.parametrize("portfolio", ["()", "[]", '[{"optimizer": "sgd", "training.batch_size": 32}]'])
def test_a_portfolio_of_plans_is_taken(portfolio):
    assert one(FILE.replace("build=build", f"build=build, portfolio={portfolio}")).status == "ok"


# --- who takes part -----------------------------------------------------------------------------------------------


def found(distribution: str) -> Found:
    return Found(distribution, "1.0", "x", "x", "mnistlab.v1", lambda: pytest.fail("must not be imported"))


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Selection(disabled=frozenset({"my-net"})), "named in MNISTLAB_DISABLE"),
        (Selection(only_built_in=True), "switched off by --no-plugins"),
        (Selection(allowed=frozenset({"other"})), "not named in the experiment's [plugins] allow"),
        (Selection(allowed=frozenset()), "not named in the experiment's [plugins] allow"),
    ],
)
def test_what_takes_no_part_is_listed_and_never_imported(wanted, reason):
    (plugin,) = load([found("My.Net")], wanted).plugins
    assert (plugin.status, plugin.reason) == ("disabled", reason)


def test_workers_load_what_their_plans_need():
    everything = Selection(disabled=frozenset({"b"})).only(["A_a", "b"])
    assert [everything.refusal(found(name)) == "" for name in ("a-a", "b", "c", "mnistlab")] == [
        True,
        False,
        False,
        True,
    ]
    assert Selection(allowed=frozenset({"a", "c"})).only(["a", "b"]).allowed == {"a"}


@pytest.mark.parametrize("wanted", [Selection(only_built_in=True), Selection(allowed=frozenset())])
def test_mnistlabs_own_plugins_always_take_part(wanted):
    assert wanted.refusal(found("mnistlab")) == ""
    assert Selection(disabled=frozenset({"mnistlab"})).refusal(found("mnistlab")) == "named in MNISTLAB_DISABLE"


@pytest.fixture
def healthy(monkeypatch, tmp_path) -> Path:
    """An experiment that uses the model of one of two plugins that are installed beside the built-ins."""
    for name in ("healthy", "marks"):
        monkeypatch.syspath_prepend(DISTS / name)
    monkeypatch.setenv("MNISTLAB_TEST_MARK", str(tmp_path / "imported"))
    path = tmp_path / "x.toml"
    path.write_text('name = "x"\n[plugins]\nallow = ["Healthy_Plugin"]\n[data]\ndataset = "digits"\n[model.tiny-net]\n')
    select.cache_clear()
    yield path
    select.cache_clear()
    for name in ("healthy_plugin", "marks_plugin"):
        sys.modules.pop(name, None)


def test_an_experiment_allows_by_name(healthy):
    wanted, registry = loader.open_with(healthy, (), selection())
    assert wanted.spec.plugins.allow == ("Healthy_Plugin",)
    assert {"mnistlab", "healthy-plugin"} <= registry.versions().keys()
    assert "marks-plugin" not in registry.versions()
    assert not healthy.with_name("imported").exists()


def test_without_a_list_every_plugin_is_loaded(healthy):
    healthy.write_text(healthy.read_text().replace('allow = ["Healthy_Plugin"]', ""))
    assert "marks-plugin" in loader.open_with(healthy, (), selection())[1].versions()
    assert healthy.with_name("imported").exists()


def test_a_name_that_is_not_installed_is_a_fault_with_a_hint(healthy):
    healthy.write_text(healthy.read_text().replace("Healthy_Plugin", "helthy-plugin"))
    with pytest.raises(SpecError) as caught:
        loader.open_with(healthy, (), selection())
    said = str(caught.value)
    rule = "[plugins.allow] names no installed distribution that offers plugins (got 'helthy-plugin')"
    assert f"{rule}; did you mean 'healthy-plugin'?" in said
    assert "healthy-plugin 2.1 (healthy_plugin) is disabled: not named in the experiment's [plugins] allow" in said


def test_no_plugins_says_what_it_switched_off(healthy):
    with pytest.raises(SpecError, match=r"healthy-plugin 2\.1 .* is disabled: switched off by --no-plugins"):
        loader.open_with(healthy, (), selection(only_built_in=True))


def test_a_field_that_is_missing_is_no_fault_whoever_reads_the_metadata() -> None:
    """The backport importlib_metadata, once imported, answers for all distributions, and raises where one is not."""

    class Strict(dict):
        def __getitem__(self, key: str) -> str:
            raise KeyError(key)

    class Bare:
        metadata = Strict()

    class Broken:
        @property
        def metadata(self) -> Strict:
            raise FileNotFoundError("No package metadata was found.")

    assert _field(Bare(), "License-Expression") == ""
    assert _field(Broken(), "Name") == ""
