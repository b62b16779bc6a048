from __future__ import annotations

import json
import os
import re

import pytest

import mnistlab
from tests.conftest import DISTS
from tests.plugins.test_discovery import FILE


def on_path(*names: str) -> str:
    return os.pathsep.join(str(DISTS / name) for name in names)


def rows(text: str) -> list[list[str]]:
    return [re.split(" {2,}", line.strip()) for line in text.splitlines()]


@pytest.mark.e2e
def test_list_reads_metadata_and_imports_nothing(run_cli, tmp_path):
    path = on_path("healthy", "slow-import", "other-api", "marks", "bad-dist-name")
    environment = {"PYTHONPATH": path, "MNISTLAB_TEST_SLOW": "600", "MNISTLAB_TEST_MARK": str(tmp_path / "imported")}
    ran = run_cli("plugins", "list", MNISTLAB_DISABLE="marks_plugin", COLUMNS="250", **environment)
    assert ran.code == 0, ran.err
    assert not (tmp_path / "imported").exists()
    shown = rows(ran.out)
    assert shown[0] == ["distribution", "version", "entry_point", "module", "api", "status", "reason"]
    assert ["healthy-plugin", "2.1", "plugin", "healthy_plugin", "mnistlab.v1", "found"] in shown
    assert ["slow-import", "1.0", "plugin", "slow_import_plugin", "mnistlab.v1", "found"] in shown
    disabled = ["marks-plugin", "1.0", "plugin", "marks_plugin", "mnistlab.v1", "disabled", "named in MNISTLAB_DISABLE"]
    assert disabled in shown
    reason = "written for mnistlab.v9; this mnistlab speaks mnistlab.v1"
    assert ["other-api", "1.0", "plugin", "other_api_plugin", "mnistlab.v9", "other API", reason] in shown
    assert "\x1b" not in ran.out
    assert "evil[red]<b>\\x1b[31m/-/x" in ran.out


def test_list_as_json(run_here):
    ran = run_here("plugins", "list", "--json", PYTHONPATH=on_path("healthy", "bad-dist-name"))
    listed = {entry["distribution"]: entry for entry in json.loads(ran.out)}
    assert listed["mnistlab"]["version"] == mnistlab.__version__
    assert listed["mnistlab"]["licence"] == "MIT"
    assert listed["healthy-plugin"]["status"] == "found"
    assert listed["evil[red]<b>\x1b[31m/-/x"]["status"] == "failed"


def test_check_says_what_there_is_and_why_something_is_not(run_here):
    path = on_path("healthy", "import-error", "other-api", "observer", "marks")
    ran = run_here("plugins", "check", PYTHONPATH=path, MNISTLAB_DISABLE="marks_plugin", COLUMNS="200")
    assert ran.code == 5
    shown = rows(ran.out)
    assert shown[0] == ["kind", "name", "summary", "distribution", "version", "status"]
    version = mnistlab.__version__
    assert ["model", "vit", "Tiny vision transformer (Dosovitskiy 2021).", "mnistlab", version, "ok"] in shown
    assert ["model", "tiny-net", "A net for tests.", "healthy-plugin", "2.1", "ok"] in shown
    assert ["observer", "plugin", "observer", "1.0", "ok"] in shown
    assert ["-", "plugin", "named in MNISTLAB_DISABLE", "marks-plugin", "1.0", "disabled"] in shown
    reason = "ModuleNotFoundError: No module named 'a_package_that_is_nowhere'"
    assert ["-", "plugin", reason, "import-error", "1.0", "failed"] in shown
    assert f"mnistlab: import-error 1.0 (import_error_plugin) failed: {reason}" in ran.err
    assert "mnistlab: other-api 1.0 (other_api_plugin): doubtful: written for mnistlab.v9" in ran.err


def test_check_of_one_distribution_and_strictly(run_here):
    path = on_path("healthy", "clash", "import-error")
    assert run_here("plugins", "check", "Healthy_Plugin", PYTHONPATH=path).code == 0
    strict = run_here("plugins", "check", "clash", "--strict", PYTHONPATH=path)
    assert strict.code == 5
    title = "mnistlab: clash 1.0 (clash_plugin): "
    assert strict.err.splitlines() == [
        f"{title}model 'cnn' is also offered as mnistlab:cnn: experiments must name one in full",
        f"{title}its metadata do not require mnistlab",
        f"{title}its metadata name no licence",
    ]
    unknown = run_here("plugins", "check", "helthy-plugin", PYTHONPATH=path)
    assert unknown.code == 5
    said = "mnistlab: no installed distribution 'helthy-plugin' offers plugins; did you mean 'healthy-plugin'?"
    assert unknown.err.strip() == said


def test_info_of_a_name_that_two_offer_shows_both(run_here):
    ran = run_here("plugins", "info", "cnn", PYTHONPATH=on_path("clash"))
    assert ran.code == 0, ran.err
    shown = rows(ran.out)
    assert ["name:", "clash:cnn"] in shown
    assert ["name:", "mnistlab:cnn"] in shown
    assert ["distribution:", f"mnistlab {mnistlab.__version__}"] in shown
    assert ["licence:", "MIT"] in shown
    assert ["source:", "mnistlab.builtin.models.cnn"] in shown
    assert ["dropout", "number 0..0.6", "0.2"] in [row[:3] for row in shown]


def test_info_tells_what_a_setting_means(run_here):
    shown = rows(run_here("plugins", "info", "sgd").out)
    assert ["lr", "number 0.003..1 (log)", "0.1", "Highest learning rate."] in shown


def test_info_of_a_distribution_lists_what_it_offers(run_here):
    path = on_path("healthy", "import-error")
    ran = run_here("plugins", "info", "Healthy_Plugin", PYTHONPATH=path, COLUMNS="200")
    assert ran.code == 0, ran.err
    shown = rows(ran.out)
    assert shown[0] == ["kind", "name", "summary", "distribution", "version", "status"]
    assert shown[1] == ["model", "tiny-net", "A net for tests.", "healthy-plugin", "2.1", "ok"]
    assert shown[2:] == [[""], ["What each of them can be set to: mnistlab plugins info NAME"]]
    facts = json.loads(run_here("plugins", "info", "healthy-plugin", "--json", PYTHONPATH=path).out)
    assert [fact["name"] for fact in facts] == ["healthy-plugin:tiny-net"]
    broken = run_here("plugins", "info", "import-error", PYTHONPATH=path, COLUMNS="200")
    assert broken.code == 0
    assert rows(broken.out)[1][-1] == "failed"


def test_info_without_plugins_knows_the_built_ins_alone(run_here):
    path = on_path("clash")
    shown = rows(run_here("plugins", "info", "cnn", "--no-plugins", PYTHONPATH=path).out)
    assert [row for row in shown if row[0] == "name:"] == [["name:", "mnistlab:cnn"]]
    gone = run_here("plugins", "info", "clash:cnn", "--no-plugins", PYTHONPATH=path)
    assert gone.code == 5
    assert "clash 1.0 (clash_plugin) is disabled: switched off by --no-plugins" in gone.err


def test_info_as_json_and_of_a_file(run_here, tmp_path):
    (tmp_path / "my_model.py").write_text(FILE)
    ran = run_here("plugins", "info", "my_model.py:tiny-net", "--json", "--plugin", "my_model.py")
    (facts,) = json.loads(ran.out)
    assert (facts["name"], facts["kind"], facts["licence"]) == ("my_model.py:tiny-net", "model", "not named")
    assert facts["settings"] == [{"setting": "width", "domain": "integer 8..64", "default": "16", "meaning": ""}]


def test_info_of_an_unknown_name(run_here):
    ran = run_here("plugins", "info", "lenett", PYTHONPATH=on_path("import-error"))
    assert ran.code == 5
    assert ran.err.startswith("mnistlab: no installed plugin offers 'lenett'; did you mean 'lenet'?; import-error 1.0")


EXPERIMENT = """
name = "x"
[data]
dataset = "digits"
[model.tiny-net]
[training]
epochs = 1
[search]
trials = 2
[confirm]
top = 1
baseline = false
seeds = 2
"""


@pytest.mark.parametrize(
    "executor",
    [
        pytest.param("local", marks=pytest.mark.simulated),
        pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.chaos]),  # else: tests/cli/test_search.py
    ],
)
def test_a_single_file_is_searched_by_the_workers_too(run_cli, run_here, tmp_path, executor):
    (tmp_path / "my_model.py").write_text(FILE)
    (tmp_path / "x.toml").write_text(EXPERIMENT)
    without = run_here("search", "x.toml")
    assert without.code == 2
    assert "[model.tiny-net] no installed plugin offers model 'tiny-net'" in without.err
    run = run_cli if executor == "ray" else run_here
    plugins = ("--plugin", "./my_model.py", "--no-plugins")
    ran = run("search", "x.toml", *plugins, "--ui", "plain", "--executor", executor)
    assert ran.code == 0, ran.err
    (path,) = (tmp_path / "runs").iterdir()
    assert (path / "plugins" / "my_model.py").read_text() == FILE
    record = json.loads((path / "run.json").read_text())
    version = record["plugin_files"]["my_model.py"]
    assert record["plugins"] == {"mnistlab": mnistlab.__version__, "my_model.py": version}
    plans = [json.loads(one.read_text())["plan"] for one in path.glob("trials/*/result.json")]
    assert {(p["model"]["plugin"], p["model"]["version"]) for p in plans} == {("my_model.py:tiny-net", version)}
    assert f"Plugins: my_model.py:tiny-net {version}, mnistlab:adamw {mnistlab.__version__}." in ran.out
    listed = run_here("leaderboard", str(path))
    assert f"my_model.py:tiny-net {version}" in listed.out


def test_a_file_that_is_not_there_is_one_message(run_here, tmp_path):
    (tmp_path / "x.toml").write_text(EXPERIMENT)
    ran = run_here("check", "x.toml", "--plugin", "my_model.py")
    assert (ran.code, ran.err.strip()) == (2, "mnistlab: --plugin my_model.py: does not exist")
