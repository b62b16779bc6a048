"""Why a worker is gone, in a word and in a sentence, and how often its trial goes on; without a Ray."""

from __future__ import annotations

import pytest

from mnistlab.tuning.retries import Leftover, Loss, Retries, log_of, loss_of
from tests.tuning import ray_texts

DUMP = "printed before\nTimeout (0:00:02)!\nThread 0x00007f (most recent call first):\n"


@pytest.mark.parametrize(
    ("log", "seconds", "limit", "cause"),
    [
        ("printed", 5.0, None, "worker"),
        ("it says Timeout (0:00:02)! somewhere", 5.0, None, "worker"),
        (DUMP, 5.0, None, "hang"),
        (DUMP, 5.0, 9.0, "hang"),
        (DUMP, 9.5, 9.0, "timeout"),
    ],
)
def test_why_a_worker_is_gone(log: str, seconds: float, limit: float | None, cause: str) -> None:
    assert loss_of(Leftover("it died", log), seconds, limit).cause == cause


def test_what_ray_kills_for_the_memory_of_the_machine_had_too_little_of_it() -> None:
    found = loss_of(Leftover(ray_texts.LOW_ON_MEMORY), 1.0, None)
    said = "worker lost: Ray ended its process on node 192.0.2.2, whose memory was nearly full (4.84GB used / 23.54GB)"
    assert found == Loss("memory", said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ray_texts.ACTOR_KILLED, "process 7936 on node 192.0.2.2 ended without a word"),
        (ray_texts.ACTOR_EXITED, "process 7935 on node 192.0.2.2 ended with exit code 3"),
        (ray_texts.ACTOR_ENDED_BY_RAY, "process 8142 on node 192.0.2.2 was ended by Ray"),
        (ray_texts.ACTOR_OUT_OF_REACH, "its process can't be reached any more"),
        (ray_texts.NODE_OF_ACTOR_DIED, "its node 192.0.2.7 is gone"),
        (ray_texts.NODE_OF_TASK_DIED, "its node 192.0.2.2 is gone"),
        (ray_texts.TASK_KILLED, "its process ended without a word"),
        (ray_texts.TASK_RAISED, "OSError: [Errno 28] No space left on device: '/x'"),
        ("", "its process ended without a word"),
    ],
)
def test_what_ray_says_at_length_is_one_plain_sentence(text: str, said: str) -> None:
    in_a_traceback = f'Traceback (most recent call last):\n  File "x.py", line 1, in f\nray.exceptions.{text}'
    for error in (text, in_a_traceback if text.startswith(("The ", "Task ")) else text):
        assert loss_of(Leftover(error), 1.0, None) == Loss("worker", f"worker lost: {said}")


def test_a_log_keeps_what_was_printed_the_sentence_and_all_that_ray_says() -> None:
    left = Leftover(ray_texts.ACTOR_KILLED, "printed\n")
    log = log_of(left, loss_of(left, 1.0, None))
    assert log.startswith("printed\n\nworker lost: process 7936 on node 192.0.2.2 ended without a word\n")
    assert ray_texts.ACTOR_KILLED in log


def test_what_ray_says_of_any_lost_worker_is_not_taken_for_a_lack_of_memory() -> None:
    said = "Common causes include: (1) the process was killed by the OOM killer due to high memory usage, (2) ..."
    assert loss_of(Leftover(said), 1.0, None).cause == "worker"


@pytest.mark.parametrize(
    ("cause", "more_room", "times"),
    [
        ("worker", False, 3),
        ("device", False, 3),
        ("system", False, 3),
        ("memory", True, 1),
        ("memory", False, 0),
        ("hang", True, 0),
        ("timeout", True, 0),
    ],
)
def test_how_often_a_trial_goes_on(cause: str, more_room: bool, times: int) -> None:
    retries = Retries(more_room=more_room)
    assert [retries.takes("0000", Loss(cause, "x")) for _ in range(5)].count(True) == times
    assert retries.takes("0001", Loss("worker", "x"))  # another trial's count is its own


def test_a_dump_that_follows_on_the_beginning_of_a_line_is_seen() -> None:
    log = "epoch 1 |###   |Timeout (0:00:00.300000)!\nCurrent thread 0x00007f (most recent call first):\n"
    assert loss_of(Leftover("it died", log), 1.0, None).cause == "hang"
