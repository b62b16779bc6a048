"""How a private Ray is kept to this machine while it starts."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from ray._private import ray_constants

from mnistlab.tuning import head

pytestmark = pytest.mark.simulated  # Ray is imported


def test_ray_s_switch_is_turned_by_its_first_user_and_put_back_by_its_last() -> None:
    """The thread that starts a Ray and the one that is given it end in any order."""
    usual = ray_constants.ENABLE_RAY_CLUSTER
    first, second = ExitStack(), ExitStack()
    first.enter_context(head._loopback())
    second.enter_context(head._loopback())
    first.close()
    assert not ray_constants.ENABLE_RAY_CLUSTER
    second.close()
    assert ray_constants.ENABLE_RAY_CLUSTER is usual
