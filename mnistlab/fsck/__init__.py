"""Checking a run directory: what must hold in it whatever has happened, and mending what can be mended without loss."""

from mnistlab.fsck.check import check
from mnistlab.fsck.findings import Finding, Report
from mnistlab.fsck.repair import repair

__all__ = ["Finding", "Report", "check", "repair"]
