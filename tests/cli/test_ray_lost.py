"""The command from end to end: Ray itself dies under a search, or answers badly; nobody waits for ever."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import psutil
import pytest

from mnistlab.errors import ExitCode
from mnistlab.fsck import check
from tests.cli.test_resume import check_whole, end, home, of_ours, run_of, start, wait_for

__all__ = ["home"]  # a fixture

pytestmark = pytest.mark.e2e

LONGEST = 60.0  # seconds that a search may take to notice that it has lost its Ray


def part_of(driver: int, name: str) -> psutil.Process:
    """Return the process of the driver's Ray that runs this program."""
    children = psutil.Process(driver).children(recursive=True)
    return next(child for child in children if (child.cmdline() or [""])[0].endswith(f"/{name}"))


@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_search_that_loses_its_ray_says_so_and_can_be_gone_on_with(home: Path, part: str) -> None:
    driver = start(home, "search", "tiny.toml")
    wait_for(home, "trial_epoch")
    part_of(driver.pid, part).kill()
    killed = time.monotonic()
    code, out, err = end(driver)
    assert time.monotonic() - killed < LONGEST
    assert code == ExitCode.RESOURCES_VANISHED, err
    # The raylet does not outlive its GCS for long.
    assert re.search(rf"Ray's (raylet and )?{part} ended: what was found so far is kept; go on with `mnistlab", err)
    assert re.search(r"run over: broken off: Ray's (raylet and )?" + part, err)
    code, said, _ = end(start(home, "status", plain=False))
    assert re.search(r"Run over: broken off: Ray's .*, exit code 75\.\nNext: mnistlab resume runs/", said)
    assert "Traceback" not in out + err
    deadline = time.monotonic() + 30
    while of_ours(home) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert of_ours(home) == []
    assert check(run_of(home)).sound
    code, _, err = end(start(home, "resume", run_of(home).name))
    assert code == 0, err
    check_whole(home)


def test_calls_inside_ray_that_fail_now_and_then_do_no_harm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the calls of these services, so many in a hundred fail before they arrive, or before their answer does.
    services = ("NodeManagerService.grpc_client.RequestWorkerLease", "NodeManagerService.grpc_client.ReturnWorkerLease")
    each = {"num_failures": 20, "req_failure_prob": 25, "resp_failure_prob": 25, "in_flight_failure_prob": 0}
    monkeypatch.setenv("RAY_testing_rpc_failure", json.dumps(dict.fromkeys(services, each)))
    code, _, err = end(start(home, "search", "tiny.toml"))
    assert code == 0, err
    check_whole(home)
    assert check(run_of(home)).sound
