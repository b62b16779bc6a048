"""The place where model cards of earlier versions look for the registry; it is `mnistlab.plugins.registry` now."""

from mnistlab.plugins.registry import installed

__all__ = ["installed"]
