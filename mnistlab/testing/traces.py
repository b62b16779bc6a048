"""What a plugin's code may not leave behind: a moved random generator, a used network; and where it raised."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
import torch


def random_states() -> dict[str, Any]:
    """Return the state of every global generator that a plugin might disturb: torch, random, numpy."""
    name, keys, *position = cast("tuple[Any, ...]", np.random.get_state())  # noqa: NPY002, RUF100 - the global one
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "random": random.getstate(),
        "numpy": (name, keys.tobytes(), *position),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Give the global generators the state that `random_states` returned."""
    torch.set_rng_state(torch.frombuffer(bytearray(states["torch"]), dtype=torch.uint8))
    random.setstate(states["random"])
    name, keys, *position = states["numpy"]
    np.random.set_state((name, np.frombuffer(keys, np.uint32), *position))  # noqa: NPY002, RUF100 - the global one


@contextmanager
def undisturbed(what: str) -> Generator[None]:
    """Fail if a global random generator has another state at the end."""
    before = random_states()
    yield
    after = random_states()
    moved = [name for name, state in before.items() if state != after[name]]
    assert not moved, f"{what} draws from or seeds the global generator of {' and '.join(moved)}"


@contextmanager
def offline(what: str) -> Generator[None]:
    """Let no host name be looked up, which every client does first, and fail if that was tried: even in vain."""
    asked: list[str] = []

    def refuse(host: object, *_: object, **__: object) -> None:
        asked.append(str(host))
        raise OSError(f"the network is not to be used, but {host} was asked for")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.getaddrinfo", refuse)
        yield
    assert not asked, f"{what} uses the network: it asks for {', '.join(dict.fromkeys(asked))}"


@contextmanager
def at(where: str) -> Generator[None]:
    """Say where, in a note to whatever is raised inside: a plugin's own error knows no point and no shape."""
    try:
        yield
    except Exception as error:
        if where not in str(error):
            error.add_note(f"raised by {where}")
        raise
