"""The kinds of file that a model leaves in, a module each: written to bytes and, where it can hold no code, read.

A kind is imported once it is asked for, because it brings torch along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mnistlab.errors import DataError

if TYPE_CHECKING:
    from torch import nn

    from mnistlab.plugins.registry import Registry
    from mnistlab.trained.portable import About, Exported

KINDS = {".pt2": "pt2", ".onnx": "onnx", ".safetensors": "safetensors"}  # the end of a file's name: its module here
UNREAD = {".pt2": "torch.export.load"}  # kinds that can hold code, and what loads them all the same
READ = tuple(kind for kind in KINDS if kind not in UNREAD)

MAX_MODEL_BYTES = 2 << 30  # what ONNX can hold in one file
TOO_LARGE = f"a model has at most {MAX_MODEL_BYTES >> 30} GiB"


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file: how a model is written, how it is read, and the lines of Python by which others load it.

    `read` takes the content, the file's name for messages, and what returns the plugins that are here. `loading` is a
    template with the fields `name`, the file's, and `shape`, such as "1, 28, 28"; it makes `logits` of `images`.
    """

    write: Callable[[nn.Module, About], bytes]
    read: Callable[[bytes, str, Callable[[], Registry]], Exported]
    loading: str


def format_of(suffix: str) -> Format:
    """Return one of `KINDS`."""
    return cast("Format", import_module(f"{__name__}.{KINDS[suffix]}").FORMAT)


def write(module: nn.Module, about: About, suffix: str) -> bytes:
    """Return the model as the content of a file of the kind that `suffix` names.

    Raises:
        CannotExportError: if the model can't be written down in this format.
        MissingExtraError: if a package is missing.
    """
    return format_of(suffix).write(module, about)


def written(module: nn.Module, about: About, place: str, registry: Callable[[], Registry]) -> tuple[bytes, Exported]:
    """Return the content of the file `place`, and the model as it is read back from it.

    What can hold code is read here too: these bytes were made a moment ago, by nobody else.

    Raises:
        MnistlabError: as `write` and `read`.
    """
    suffix = Path(place).suffix
    data = write(module, about, suffix)
    return data, _read(data, place, suffix, registry)


def read(data: bytes, place: str, registry: Callable[[], Registry]) -> Exported:
    """Return the model of a file's content, whose kind the end of its name `place` says.

    `registry` is asked only where the file holds a plan in place of a program.

    Raises:
        DataError: if it is damaged, not one that `write` wrote, or of a kind that can hold code.
        MissingExtraError: if a package is missing.
        PluginError: if it needs a plugin that is not here, or of another version.
    """
    suffix, kinds = Path(place).suffix, " or ".join(READ)
    if suffix in UNREAD:
        yourself = f"load it with {UNREAD[suffix]} yourself if you trust the file"
        raise DataError(f"{place} is not read, for a {suffix} can hold code: export it as {kinds}, or {yourself}")
    if suffix not in READ:
        raise DataError(f"{place} is no model that can be read: its name must end with {kinds}")
    return _read(data, place, suffix, registry)


def _read(data: bytes, place: str, suffix: str, registry: Callable[[], Registry]) -> Exported:
    if len(data) > MAX_MODEL_BYTES:
        raise DataError(f"{place}: {TOO_LARGE}")
    return format_of(suffix).read(data, place, registry)
