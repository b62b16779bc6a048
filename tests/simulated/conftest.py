"""These runs are written into memory where there is a folder for that, and removed as soon as they are judged."""

from __future__ import annotations

from tests.faults.conftest import tmp_path

__all__ = ["tmp_path"]  # a fixture
