"""The command from end to end: Ray itself dies under a search, or answers badly; nobody waits for ever."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from mnistlab.errors import ExitCode
from mnistlab.store import read_events, read_run
from mnistlab.store.fsck import check
from mnistlab.store.results import TrialResult
from tests.cli.starting import (
    MNISTLAB,
    check_whole,
    end,
    environ,
    of_ours,
    run_of,
    start_on_ray,
    wait_for,
    wait_until,
)
from tests.cli.starting import start as start_local
from tests.terminals import Terminal

pytestmark = pytest.mark.ray

LONGEST = 60.0  # seconds that a search may take to notice that it has lost its Ray
AT_ONCE = 10.0


def part_of(driver: int, name: str) -> psutil.Process:
    """Return the process of the driver's Ray that runs this program."""
    children = psutil.Process(driver).children(recursive=True)
    return next(child for child in children if re.split(r"/|::", (child.cmdline() or [""])[0])[-1] == name)


def resume_of(ray_home: Path) -> str:
    return f"mnistlab resume {run_of(ray_home).relative_to(ray_home)}"


def check_gone_on_with(ray_home: Path) -> None:
    """What was left is sound, nothing of Ray is, and `resume` brings the run to its end."""
    wait_until(lambda: not of_ours(ray_home))
    assert check(run_of(ray_home)).sound
    code, _, err = end(start_local(ray_home, "resume", run_of(ray_home).name))
    assert code == 0, err
    check_whole(ray_home)


@pytest.mark.parametrize("part", ["raylet", pytest.param("gcs_server", marks=pytest.mark.chaos)])
def test_a_search_that_loses_its_ray_and_then_its_driver_comes_to_its_end(ray_home: Path, part: str) -> None:
    driver = start_on_ray(ray_home, "search", "tiny.toml", "--set", "resources.max_parallel=1")
    wait_for(ray_home, "trial_epoch")
    part_of(driver.pid, part).kill()
    killed = time.monotonic()
    code, out, err = end(driver)
    assert time.monotonic() - killed < LONGEST
    assert code == ExitCode.RESOURCES_VANISHED, err
    # The raylet does not outlive its GCS for long.
    what = rf"Ray's (raylet and )?{part} ended"
    assert re.search(rf"mnistlab: {what}: what was found so far is kept; go on with `{resume_of(ray_home)}`", err)
    assert err.count("go on with") == 1
    assert "Traceback" not in out + err
    # Without its GCS Ray may keep the driver waiting, deaf, until its process is ended: then the run has no end.
    if part == "raylet" or "run over: " in err:
        assert re.search(rf"run over: broken off: {what} \(", err)
        code, said, _ = end(start_local(ray_home, "status", plain=False))
        assert re.search(r"Run over: broken off: Ray's .*, exit code 75\.\nNext: mnistlab resume runs/", said)
    wait_until(lambda: not of_ours(ray_home))
    assert check(run_of(ray_home)).sound
    check_killed_driver(ray_home)


def check_killed_driver(ray_home: Path) -> None:
    """A driver that takes the run up with a Ray, and is killed, loses nothing that has ended."""
    before = ended(ray_home)
    driver = start_on_ray(ray_home, "resume", run_of(ray_home).name)
    wait_until(lambda: len(ended(ray_home)) > len(before), driver)
    driver.send_signal(signal.SIGKILL)
    _, err = driver.communicate()
    assert "going on with the run: " in err
    found = ended(ray_home)
    check_gone_on_with(ray_home)
    assert before.items() <= found.items() <= ended(ray_home).items()


def ended(ray_home: Path) -> dict[str, TrialResult]:
    return {one.trial: one for one in read_run(run_of(ray_home)).trials if one.state != "interrupted"}


@pytest.mark.chaos
@pytest.mark.parametrize("agent", ["DashboardAgent", "RuntimeEnvAgent"])
def test_a_search_that_ray_takes_along_is_told_and_can_be_gone_on_with(ray_home: Path, agent: str) -> None:
    # The raylet ends with its agents, at once, and the driver as soon as it needs something of the raylet.
    driver = start_on_ray(ray_home, "search", "tiny.toml")
    wait_for(ray_home, "trial_epoch")
    part_of(driver.pid, agent).kill()
    killed = time.monotonic()
    code, _, err = end(driver)
    assert time.monotonic() - killed < AT_ONCE
    assert code in {1, ExitCode.RESOURCES_VANISHED}, err  # whoever comes first: Ray, or the thread that looks at it
    ended = r"Ray's raylet( and gcs_server)? ended"
    what = rf"({ended}(, and this process with it)?|this process was killed, or {ended} and took it along)"
    assert re.search(rf"mnistlab: {what}: what was found so far is kept; go on with `{resume_of(ray_home)}`", err)
    assert err.count("go on with") == 1
    check_gone_on_with(ray_home)


@pytest.mark.chaos
def test_a_search_that_ray_takes_along_gives_the_terminal_back(ray_home: Path) -> None:
    shown = Terminal(150, 30)
    left_out = {"CI", "COLUMNS", "MNISTLAB_UI"}
    there = {name: value for name, value in environ(ray_home, TERM="xterm").items() if name not in left_out}
    driver = shown.run([MNISTLAB, "search", "tiny.toml"], ray_home, there)
    try:
        wait_for(ray_home, "trial_epoch")
        shown.until(lambda: shown.cursor_hidden and not shown.echoes)
        part_of(driver.pid, "DashboardAgent").kill()
        driver.wait(timeout=AT_ONCE)
        said = f"go on with `{resume_of(ray_home)}`".replace(" ", "")  # it may fill two lines, which end in no space
        shown.until(lambda: said in "".join(shown.lines()).replace(" ", ""))
        assert not shown.cursor_hidden
        assert shown.echoes
    finally:
        driver.kill()
        driver.wait()
        shown.hang_up()


IN_A_THREAD = """
import sys, threading, mnistlab

def drive():
    try:
        mnistlab.search("tiny.toml", ui="quiet")
    except BaseException as error:
        print(type(error).__name__, error, flush=True)

thread = threading.Thread(target=drive)
thread.start()
thread.join()
"""


@pytest.mark.chaos
@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_of_a_search_in_another_thread_than_the_main_one_it_is_told_too(ray_home: Path, part: str) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", IN_A_THREAD],
        cwd=ray_home,
        env=environ(ray_home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(ray_home, "trial_epoch")
    part_of(driver.pid, part).kill()
    killed = time.monotonic()
    code, out, err = end(driver)
    assert time.monotonic() - killed < LONGEST
    assert code in {1, ExitCode.RESOURCES_VANISHED}
    # By an exception where the thread comes by; it may wait for Ray, deaf, and then the process ends.
    assert re.search(rf"Ray's .*{part}.* ended.*: .*; go on with `{resume_of(ray_home)}`", out or err), (out, err)
    check_gone_on_with(ray_home)


NODE, GCS = "NodeManagerService.grpc_client", "ray::rpc::{}GcsService.grpc_client"
ACTORS, PLACES, VALUES = GCS.format("ActorInfo"), GCS.format("PlacementGroupInfo"), GCS.format("InternalKV")
NODES, NEWS = GCS.format("NodeInfo"), GCS.format("ControlPlanePubSub")
# What a search needs of Ray.
CALLS = {
    "leases": (f"{NODE}.RequestWorkerLease", f"{NODE}.ReturnWorkerLease"),
    "actors": tuple(f"{ACTORS}.{call}" for call in ("RegisterActor", "CreateActor", "GetActorInfo", "KillActorViaGcs")),
    "places": tuple(f"{PLACES}.{call}" for call in ("CreatePlacementGroup", "RemovePlacementGroup")),
    "values": tuple(f"{VALUES}.{call}" for call in ("InternalKVGet", "InternalKVPut", "InternalKVExists")),
    "nodes": (f"{NODES}.GetAllNodeInfo", f"{NODES}.CheckAlive"),
    "news": (f"{NEWS}.GcsSubscriberCommandBatch", f"{NEWS}.GcsSubscriberPoll"),
}


def faults(calls: tuple[str, ...], times: int, *, before: int = 0, after: int) -> str:
    """Return Ray's setting by which each of these calls fails so often at most.

    In so many of a hundred cases it fails before it arrives, and in so many others before its answer does.
    """
    each = {"num_failures": times, "req_failure_prob": before, "resp_failure_prob": after}
    return json.dumps({call: {**each, "in_flight_failure_prob": 0} for call in calls})


def ends(ray_home: Path, driver: subprocess.Popen[str]) -> tuple[int, str, set[str]]:
    """Wait for the end; return code, what was said, and the calls that Ray's logs say have failed by request."""
    failed, deadline = set[str](), time.monotonic() + 240
    while driver.poll() is None and time.monotonic() < deadline:
        for log in ray_home.glob("mnistlab-*/r/session_2*/logs/*"):
            with suppress(OSError):
                failed |= set(re.findall(r"Inject RPC \w+ failure[\w ]* for (\S+)", log.read_text(errors="replace")))
        time.sleep(0.2)
    code, out, err = end(driver)
    return code, out + err, failed


@pytest.mark.chaos
@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_calls_inside_ray_that_fail_now_and_then_do_no_harm(
    ray_home: Path, monkeypatch: pytest.MonkeyPatch, calls: tuple[str, ...]
) -> None:
    does_no_harm(ray_home, monkeypatch, calls, faults(calls, times=20, before=25, after=25))


@pytest.mark.chaos
def test_the_first_calls_for_workers_that_all_fail_do_no_harm(ray_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    does_no_harm(ray_home, monkeypatch, CALLS["leases"], faults(CALLS["leases"], times=3, before=50, after=50))


def does_no_harm(ray_home: Path, monkeypatch: pytest.MonkeyPatch, calls: tuple[str, ...], failing: str) -> None:
    monkeypatch.setenv("RAY_testing_rpc_failure", failing)
    code, said, failed = ends(ray_home, start_on_ray(ray_home, "search", "tiny.toml"))
    assert code == 0, said
    assert failed  # Ray has heard of it
    assert failed <= set(calls)
    assert longest_silence(ray_home) < LONGEST
    check_whole(ray_home)
    assert check(run_of(ray_home)).sound


def longest_silence(ray_home: Path) -> float:
    """Return the longest time, in seconds, between two events of the run that tell of trials, replicates or models."""
    times = [one.t for one in read_events(run_of(ray_home)) if one.event.type != "resources"]
    return max(after - before for before, after in pairwise(times))


@pytest.mark.chaos
def test_answers_inside_ray_that_are_lost_for_good_keep_nobody_waiting(
    ray_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray then holds places that nobody gets: by itself it would wait for them for ever.
    prepare = f"{NODE}.PrepareBundleResources"
    monkeypatch.setenv("RAY_testing_rpc_failure", faults((prepare,), times=4, after=100))
    began = time.monotonic()
    code, said, failed = ends(ray_home, start_on_ray(ray_home, "search", "tiny.toml"))
    assert code == ExitCode.RESOURCES_VANISHED, said
    assert time.monotonic() - began < 2 * LONGEST  # with the start of Ray, and its end
    assert longest_silence(ray_home) < LONGEST
    assert failed == {prepare}
    assert "Ray has found no place for a worker for 30 s, with nothing running" in said
    assert check(run_of(ray_home)).sound
    monkeypatch.delenv("RAY_testing_rpc_failure")
    code, _, err = end(start_on_ray(ray_home, "resume", run_of(ray_home).name))
    assert code == 0, err
    check_whole(ray_home)
