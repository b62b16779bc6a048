"""A real notebook: its kernel, two searches in it, and all that they send to whoever looks at it.

The cells are those of the page that tells how to use a notebook.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from mnistlab import store
from mnistlab.events import RunFinished, TrialFinished
from tests.conftest import PACKAGES
from tests.test_docs import FENCE, ROOT

pytestmark = pytest.mark.e2e

PAGE = ROOT / "docs" / "howto" / "use-in-a-notebook.md"
SHOWN = [match[2] for match in FENCE.finditer(PAGE.read_text(encoding="utf-8")) if match[1] == "py"]
QUICK = """
name = "quick"
seed = 3
[data]
dataset = "digits"
validation = 300
[model.mlp]
depth = 1
width = [32, 64]
[training]
epochs = 1
batch_size = 64
[search]
scheduler = "none"
[confirm]
top = 1
seeds = 2
"""
# The second search of this kernel: the interrupt that a front end sends comes as soon as a trial has ended an epoch.
INTERRUPTED = """
import os, pathlib, signal, threading, time

def interrupt():
    while not any("trial_epoch" in path.read_text() for path in pathlib.Path("runs").glob("long-*/events.jsonl")):
        time.sleep(0.1)
    os.killpg(os.getpgid(0), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
settings = {"name": "long", "training.epochs": 2000}
cut = mnistlab.search("experiments/quick.toml", trials=2, set=settings, executor="local")
print(cut.exit_code, cut.outcome, sorted(cut.trials["state"].unique()))
"""


class Watched(NotebookClient):
    """A front end that keeps every message which the kernel sends for each cell."""

    messages: dict[int, list[Any]]

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        self.messages.setdefault(cell_index, []).append(msg)
        return super().process_message(msg, cell, cell_index)


@dataclass
class Ran:
    """A notebook that was run: its cells with their outputs, and the messages that made them."""

    folder: Path
    cells: list[Any]
    messages: dict[int, list[Any]]

    def sent(self, cell: int, *kinds: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages[cell] if message["msg_type"] in kinds]

    def text(self, cell: int) -> str:
        return "".join(content["text"] for content in self.sent(cell, "stream"))

    def run(self, name: str) -> Path:
        (path,) = (self.folder / "runs").glob(f"{name}-*")
        return path


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "quick.toml").write_text(QUICK)
    quickly = ("trials=4)", 'trials=2, executor="local")')
    assert quickly[0] in SHOWN[0]
    cells = [nbformat.v4.new_code_cell(source.replace(*quickly)) for source in [*SHOWN, INTERRUPTED]]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MNISTLAB_CACHE"):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv("MNISTLAB_OFFLINE", "1")
        patch.setenv("MNISTLAB_DISABLE", ",".join(PACKAGES))
        patch.delenv("MNISTLAB_UI", raising=False)
        book = nbformat.v4.new_notebook(cells=cells)
        client = Watched(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
        client.messages = {}
        client.execute()
    return Ran(folder, book.cells, client.messages)


SEARCHES = (0, len(SHOWN))


@pytest.mark.parametrize("cell", SEARCHES)
def test_a_search_shows_one_view_and_updates_it(notebook: Ran, cell: int) -> None:
    (first,) = notebook.sent(cell, "display_data")
    updates = notebook.sent(cell, "update_display_data")
    assert updates
    assert {update["transient"]["display_id"] for update in updates} == {first["transient"]["display_id"]}
    assert all("text/html" in message["data"] for message in (first, *updates))
    assert "mnistlab: " in first["data"]["text/html"]
    assert not notebook.sent(cell, "clear_output")


@pytest.mark.parametrize(("cell", "ended"), [(0, "done: 2/2 trials"), (SEARCHES[1], "interrupted: ")])
def test_what_stays_of_it_is_the_last_state(notebook: Ran, cell: int, ended: str) -> None:
    (output,) = [output for output in notebook.cells[cell].outputs if output.output_type == "display_data"]
    assert ended in output.data["text/html"]


def test_nothing_else_is_written_into_the_notebook(notebook: Ran) -> None:
    assert [notebook.text(cell) for cell in range(len(SHOWN))] == [""] * len(SHOWN)
    assert notebook.text(SEARCHES[1]) == "130 interrupted ['interrupted']\n"


def test_the_result_is_shown_as_its_ranking_and_as_tables(notebook: Ran) -> None:
    (ranking,), (trials,), (curves,), (outcome,) = (notebook.sent(cell, "execute_result") for cell in (1, 2, 3, 4))
    assert "confirmed" in ranking["data"]["text/html"]
    assert "<SearchResult runs/quick-" in ranking["data"]["text/plain"]
    assert trials["data"]["text/html"].count("<tr") == 3  # the titles and two trials
    assert "confirmed" in trials["data"]["text/plain"]
    assert "0001" in curves["data"]["text/plain"]
    assert outcome["data"]["text/plain"] == "'done'"


def test_both_searches_left_whole_runs(notebook: Ran) -> None:
    done, cut = ([stamped.event for stamped in store.read_events(notebook.run(name))] for name in ("quick", "long"))
    assert sum(isinstance(event, TrialFinished) for event in done) == 2
    ends = [event for event in (done[-1], cut[-1]) if isinstance(event, RunFinished)]
    assert [end.exit_code for end in ends] == [0, 130]
