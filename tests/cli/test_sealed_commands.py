"""Commands that run plugins on a finished run's data: whatever a plugin asks for, the test images stay sealed."""

from __future__ import annotations

import pytest

from mnistlab import store
from mnistlab.cli.main import SEALED, main
from mnistlab.util.seal import guarded

ARGUMENTS = {
    "reproduce": ["RUN", "0000"],
    "export": ["RUN", "-o", "model.pt2"],
    "predict": ["RUN", "digit.png"],
    "report": ["RUN", "-o", "report.html"],
}


@pytest.mark.parametrize("name", sorted(command.__name__ for command in SEALED))
def test_a_plugin_that_asks_for_test_images_is_refused(name: str, monkeypatch, capsys) -> None:
    def ask(*_: object) -> None:
        guarded("mine", lambda config, place, split: None)(None, None, "test")

    ask()  # outside of these commands nobody minds
    monkeypatch.setattr(store, "find_run", ask)
    with pytest.raises(SystemExit) as ended:
        main([name, *ARGUMENTS[name]])
    assert ended.value.code == 5
    assert "dataset 'mine' was asked for its test images, but the test set is sealed" in capsys.readouterr().err
    ask()


def test_these_are_the_commands() -> None:
    assert {command.__name__ for command in SEALED} == set(ARGUMENTS)
