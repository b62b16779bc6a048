"""What the kinds have in common for which torch follows a model's steps: an example to do so with, and quiet."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout

import torch
from torch import Tensor

from mnistlab.errors import MnistlabError
from mnistlab.trained.portable import About, CannotExportError

ROWS = {"images": {0: torch.export.Dim("N", min=1, max=1 << 20)}}  # any number of images


def example(about: About) -> tuple[Tensor]:
    """Return the arguments to follow a model with: float32 images (2, C, H, W) in [0, 1]."""
    return (torch.rand(2, *about.shape),)


@contextmanager
def cannot_export(how: str) -> Generator[None]:
    """Put into words that a model can't be written down: usually its code decides by values that it computes.

    What exporters print and warn of is held back: it is about their own insides.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except MnistlabError:
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")[:300]
        hint = "its code may branch on computed values; .safetensors takes any model"
        reason = f"{type(error).__name__}: {first}"
        raise CannotExportError(f"{how} can't write this model down: {reason} ({hint})") from error
    finally:
        logging.disable(before)
