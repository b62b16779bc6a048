"""The private Ray is closed and silent."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import ray

from mnistlab.errors import ResourceError
from mnistlab.tuning.ray.cluster import cluster
from mnistlab.tuning.resources import Machine

pytestmark = pytest.mark.ray


def test_a_private_ray_has_a_token_no_dashboard_and_no_telemetry(ray_session: None) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token"
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    assert len(token.read_text()) >= 32
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not ray._private.worker.get_dashboard_url()


def test_a_ray_that_this_process_is_in_is_neither_used_nor_shut_down(ray_session: None) -> None:
    with pytest.raises(ResourceError, match=r"ray\.shutdown\(\)"), cluster(None, Machine(cpus=1, gpus=0)):
        pass
    assert ray.is_initialized()
