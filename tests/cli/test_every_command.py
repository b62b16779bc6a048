"""Each command on a run of each state: what it ends with, and which of its streams gets what.

The commands are processes of their own, forked from this one; what reads a run is tried in this one, on every state.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from typer.core import TyperGroup
from typer.main import get_command

from mnistlab.cli.main import app
from mnistlab.errors import ExitCode
from tests.cli.starting import end, run_of, start
from tests.conftest import here
from tests.tuning.conftest import DISTS

pytestmark = pytest.mark.simulated

CONFIRMED = Path(__file__).parents[1] / "recordings/quick-run"
BRIEF = ("--trials", "1", "--set", "training.epochs=1", "--set", "confirm.top=0")
# How each is typed in a folder with a run that has ended well, and a word of the result on standard output.
WELL = {
    "search": (("tiny.toml", *BRIEF), "rank "),
    "resume": (("{run}", "--trials", "3"), "leads with"),
    "retry": (("{run}", "--failed"), None),
    "confirm": (("{run}", "--top", "1", "--seeds", "2"), "rank "),
    "check": (("tiny.toml",), "width"),
    "train": (("tiny.toml", "--set", "training.epochs=1"), "epoch 1/1"),
    "leaderboard": ((), "rank "),
    "compare": ((f"{CONFIRMED}:0006", f"{CONFIRMED}:0003"), "0003"),
    "report": (("{run}", "--no-predictions"), "report.html"),
    "watch": (("{run}", "--ui", "json"), '"type":"run_finished"'),
    "replay": (("{run}", "--speed", "100000", "--ui", "json"), '"type":"run_finished"'),
    "status": (("{run}",), "confirmation: 2 of 2"),
    "fsck": (("{run}",), "sound"),
    "reproduce": (("{run}",), "Agrees exactly"),
    "export": (("{run}",), "model.safetensors"),
    "predict": (("{run}", "picture.png"), "picture.png"),
    "plugins list": ((), "mnistlab.builtin.models"),
    "plugins info": (("mlp",), "width"),
    "plugins check": ((), "LeNet-5"),
    "plugins new": (("my-shade", "--kind", "transform"), "mnistlab-my-shade"),
}
# How each is typed wrongly, and a word of what is wrong.
WRONG = {
    "search": (("tyni.toml",), "tyni.toml"),
    "resume": (("tiny-2020",), "tiny-2020"),
    "retry": (("{run}",), "say --failed"),
    "confirm": (("tiny-2020",), "tiny-2020"),
    "check": (("tyni.toml",), "tyni.toml"),
    "train": (("tiny.toml", "--model", "mpl"), "mpl"),
    "leaderboard": (("tiny-2020",), "tiny-2020"),
    "compare": (("{run}", "{run}:0009"), "0009"),
    "report": (("tiny-2020",), "tiny-2020"),
    "watch": (("tiny-2020",), "tiny-2020"),
    "replay": (("tiny-2020",), "tiny-2020"),
    "status": (("tiny-2020",), "tiny-2020"),
    "fsck": (("tiny-2020",), "tiny-2020"),
    "reproduce": (("{run}", "0009"), "0009"),
    "export": (("{run}", "-o", "model.zip"), "model.zip"),
    "predict": (("{run}:nothing", "picture.png"), "nothing"),
    "plugins list": (("--jsn",), "--jsn"),
    "plugins info": (("mpl",), "mpl"),
    "plugins check": (("nosuch",), "nosuch"),
    "plugins new": (("My Shade", "--kind", "transform"), "My Shade"),
}


def typed(home: Path, command: str, words: tuple[str, ...]) -> tuple[int, str, str]:
    """Type a command in a folder with one run."""
    picture = Image.new("L", (20, 20), 255)
    ImageDraw.Draw(picture).line((10, 2, 10, 18), width=3)
    picture.save(home / "picture.png")
    run = run_of(home).name
    arguments = [*command.split(), *(word.format(run=run) for word in words)]
    if command == "report":  # a thread of what draws its charts is missed in a process that was forked
        ran = here(home)(*arguments)
        return ran.code, ran.out, ran.err
    return end(start(home, *arguments, plain=False))


def commands(group: TyperGroup, before: str = "") -> set[str]:
    """Return the names of all commands below one, as they are typed."""
    found = set[str]()
    for name, one in group.commands.items():
        found |= commands(one, f"{name} ") if isinstance(one, TyperGroup) else {before + name}
    return found


def test_no_command_is_left_out() -> None:
    every = get_command(app)
    assert isinstance(every, TyperGroup)
    assert WELL.keys() == WRONG.keys() == commands(every)


@pytest.mark.parametrize("command", WELL)
def test_what_was_asked_for_goes_to_standard_output(command: str, finished: Path) -> None:
    words, said = WELL[command]
    if command == "search":
        (finished / "runs").rename(finished / "others")
        (finished / "runs").mkdir()
        (finished / "runs" / "x").mkdir()  # `typed` looks for a name there
    code, out, err = typed(finished, command, words)
    assert code == 0, err
    assert (said in out) if said else (out == "" and "nothing is left to do" in err)
    assert "Traceback" not in err


@pytest.mark.parametrize("command", WRONG)
def test_what_is_wrong_goes_to_standard_error(command: str, finished: Path) -> None:
    words, said = WRONG[command]
    code, out, err = typed(finished, command, words)
    assert (code, out) == (
        ExitCode.DATA_OR_PLUGIN if command in ("plugins info", "plugins check") else ExitCode.USAGE,
        "",
    )
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["leaderboard", "status", "report --no-predictions", "fsck", "watch --ui plain"])
@pytest.mark.parametrize("state", ["finished", "interrupted", "failed"])
def test_what_reads_a_run_reads_each(state: str, command: str, request: pytest.FixtureRequest) -> None:
    home = request.getfixturevalue(state)
    run = run_of(home).name
    ran = here(home)(*command.split(), run)
    assert ran.code == 0, ran.err
    said = (home / "report.html").read_text(encoding="utf-8") if command.startswith("report") else ran.out + ran.err
    assert run in said


def test_what_has_failed_fails_again_where_nothing_has_changed(failed: Path) -> None:
    code, out, err = end(start(failed, "retry", run_of(failed).name, "--failed", PYTHONPATH=str(DISTS)))
    assert code == 1, err
    assert "this plan can't be built" in out + err
