"""Is this installation able to run? The one known way in which it often is not, said in one sentence."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, requires, version

from mnistlab.errors import MnistlabError
from mnistlab.util.text import unbroken


class BrokenInstallationError(MnistlabError):
    """Packages are installed that don't work together."""

    exit_code = MnistlabError.exit_code.DATA_OR_PLUGIN


def check_environment() -> None:
    """Refuse a torch and a torchvision that were not built for each other.

    A CPU-only torch with a torchvision that was built against CUDA fails at import with "operator torchvision::nms
    does not exist". The metadata show a suspicious pair at no cost; only such a pair is then tried by importing it,
    which takes a second.

    Raises:
        BrokenInstallationError: saying what is installed and what to do.
    """
    try:
        torch, vision = version("torch"), version("torchvision")
    except PackageNotFoundError as error:
        raise BrokenInstallationError(
            f"{error.name} is not installed; install mnistlab with its requirements"
        ) from None
    if _suits(torch, vision, requires("torchvision") or []):
        return
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = unbroken(str(error))
        raise BrokenInstallationError(
            f"torch {torch} and torchvision {vision} do not work together ({reason}); install both from the same "
            "place and of matching versions, for example those in constraints.txt"
        ) from None


def _suits(torch: str, vision: str, requirements: list[str]) -> bool:
    """Return whether the two were built for each other: same build tag, and the torch that torchvision names."""
    same_build = torch.partition("+")[2] == vision.partition("+")[2]
    wanted = [r.partition("==")[2].strip() for r in requirements if r.partition("==")[0].strip(" (") == "torch"]
    return same_build and (not wanted or wanted[0].rstrip(")") == torch.partition("+")[0])
