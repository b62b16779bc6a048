"""Checking a run directory: what must hold in it whatever has happened, and mending what can be mended without loss."""

from mnistlab.store.fsck.check import check
from mnistlab.store.fsck.findings import Finding, Report
from mnistlab.store.fsck.repair import repair

__all__ = ["Finding", "Report", "check", "repair"]
