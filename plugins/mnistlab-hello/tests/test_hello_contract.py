from pathlib import Path

import mnistlab_hello

from mnistlab.testing import ChannelsLastContract, CompilesContract, PluginContract, VmapContract


class TestContract(PluginContract, ChannelsLastContract, CompilesContract, VmapContract):
    plugin = mnistlab_hello


SOURCE = Path(mnistlab_hello.__file__).read_text(encoding="utf-8")


def test_it_is_as_short_as_the_tutorial_says():
    assert sum(bool(line.strip()) for line in SOURCE.splitlines()) <= 15


def test_its_page_shows_it_as_it_is():
    page = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    assert f"```python\n{SOURCE}```" in page


EXPERIMENT = """
name = "hello"
[plugins]
allow = ["mnistlab-hello"]
[data]
dataset = "digits"
[model.hello]
width = [16, 32]
[training]
epochs = 1
[search]
trials = 2
[confirm]
top = 0
"""


def test_it_is_searched(lab):
    lab.write("hello.toml", EXPERIMENT)
    ran = lab.run("search", "hello.toml", "--executor", "local")
    assert ran.code == 0, ran.err
    trials = lab.last_run().trials
    assert [trial.plan["model"]["plugin"] for trial in trials] == ["mnistlab-hello:hello"] * 2
    assert [trial.plan["model"]["version"] for trial in trials] == ["0.1.0"] * 2
