"""The script that checks a real GPU goes its way on a CPU, but for what starts Ray, and says where there is no GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
WITH_RAY = ("check_identity", "measure_search", "measure_packing")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, without the steps that start Ray."""
    monkeypatch.syspath_prepend(FOLDER)
    import gpu

    monkeypatch.setattr(gpu, "STEPS", tuple(step for step in gpu.STEPS if step.__name__ not in WITH_RAY))
    monkeypatch.setattr(gpu.loop, "set_up_process", lambda *_, **__: torch.device("cpu"))
    assert "gpu" in sys.modules
    return gpu


@pytest.mark.e2e
def test_a_dry_run_checks_all_that_a_cpu_can_and_leaves_a_record(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = script.main(["--dry", "--rounds", "1", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert (code, printed.splitlines()[-1]) == (0, "Every check holds.")
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["device"] == "none, a dry run on the CPU"
    holds = {line["figure"].partition(",")[0]: line["holds"] for line in record["figures"]}
    assert list(holds.values()).count(True) == 7
    assert (tmp_path / "gpu.md").read_text() in printed


def test_a_check_that_breaks_or_does_not_hold_ends_with_code_1(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(_bench: object) -> list[object]:
        """Break."""
        raise RuntimeError("no kernel")

    monkeypatch.setattr(script, "STEPS", (breaks, lambda _: [script.Found("one", "yes", "no", holds=False)]))
    assert script.main(["--dry"]) == 1
    assert "2 checks do not hold: Break.; one" in capsys.readouterr().out


def test_what_there_is_no_time_for_is_named(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--dry", "--minutes", "0"]) == 0
    assert capsys.readouterr().out.count("left out, for lack of time") == len(script.STEPS)


def test_without_a_gpu_it_says_so_and_ends_with_code_2(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main([]) == 2
    assert capsys.readouterr().out.startswith("No GPU: torch sees none on this machine")
