"""The files that a model leaves in: `.pt2`, `.onnx` and `.safetensors`, each written to bytes and read back.

Nothing is unpickled: safetensors and ONNX hold no code, and a `.pt2` is looked through before torch reads it.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from mnistlab.errors import DataError, MnistlabError
from mnistlab.plugins.registry import Registry
from mnistlab.trained.portable import About, Ask, CannotExportError, Logits, Pixels, Together, about_from, ask_of, build
from mnistlab.trained.pt2_check import check_pt2

MAX_MODEL_BYTES = 2 << 30  # what ONNX can hold in one file
KEY = "mnistlab"  # of the metadata
_PT2_FILE = "mnistlab.json"


@dataclass(frozen=True)
class Exported:
    """A model read from a file: what the file says of it, and the model itself."""

    about: About
    ask: Ask


class MissingExtraError(MnistlabError):
    """A package of the extra `mnistlab[export]` that is needed and not installed."""

    exit_code = MnistlabError.exit_code.DATA_OR_PLUGIN


# --- choosing a format --------------------------------------------------------------------------------------------


def write(module: nn.Module, about: About, suffix: str) -> bytes:
    """Return the model as the content of a file of the kind that `suffix` names.

    Raises:
        CannotExportError: if the model can't be written down in this format.
        MissingExtraError: if a package is missing.
    """
    return WRITERS[suffix](module, about)


def read(data: bytes, place: str, registry: Callable[[], Registry]) -> Exported:
    """Return the model of a file's content, whose kind the end of its name `place` says.

    `registry` is asked only where the file holds a plan in place of a program.

    Raises:
        DataError: if it is damaged or not one that `write` wrote.
        MissingExtraError: if a package is missing.
        PluginError: if it needs a plugin that is not here, or of another version.
    """
    if len(data) > MAX_MODEL_BYTES:
        raise DataError(f"{place}: a model has at most {MAX_MODEL_BYTES >> 30} GiB")
    suffix = Path(place).suffix
    if suffix == ".safetensors":
        return _from_safetensors(data, place, registry())
    return _from_pt2(data, place) if suffix == ".pt2" else _from_onnx(data, place)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        install = "pip install 'mnistlab[export]'"
        raise MissingExtraError(f"the package '{name}' can't be imported ({error}); {install}") from None


# --- safetensors: weights and the plan to build the model from ----------------------------------------------------


def _to_safetensors(module: nn.Module, about: About) -> bytes:
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in module.state_dict().items()}
    return save(tensors, metadata={KEY: about.text()})


def _from_safetensors(data: bytes, place: str, registry: Registry) -> Exported:
    about = about_from(_safetensors_metadata(data, place), place)
    try:
        tensors = load(data)
        models = [_tensors_of(tensors, number, about.members) for number in range(about.members)]
        means = [(own.pop("mean"), own.pop("std")) for own in models]
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{place} is damaged: {error}") from None
    packed = [save({name.removeprefix("module."): one for name, one in own.items()}) for own in models]
    parts = zip(packed, means, strict=True)
    built = [build(about.plan, inner, about.image_shape, *scale, registry) for inner, scale in parts]
    return Exported(about, ask_of(built[0] if len(built) == 1 else Together(built)))


def _tensors_of(tensors: Mapping[str, Tensor], number: int, members: int) -> dict[str, Tensor]:
    """Return the tensors of a model, the only one or member `number` of several, under its own names."""
    prefix = f"members.{number}." if members > 1 else ""
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def _safetensors_metadata(data: bytes, place: str) -> str:
    try:
        length = int.from_bytes(data[:8], "little")
        return str(json.loads(data[8 : 8 + length])["__metadata__"][KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{place} is no model that mnistlab exported: it has no metadata '{KEY}'") from None


# --- pt2: torch's own program -------------------------------------------------------------------------------------


def _traced(module: nn.Module, about: About) -> torch.export.ExportedProgram:
    example = (torch.rand(2, *about.shape),)
    rows = torch.export.Dim("N", min=1, max=1 << 20)
    with _cannot_export("torch.export"), torch.no_grad():
        program = torch.export.export(module, example, dynamic_shapes={"images": {0: rows}})
    program.example_inputs = None  # torch would pickle them
    return program


def _to_pt2(module: nn.Module, about: About) -> bytes:
    buffer = io.BytesIO()
    program = _traced(module, about)
    with _cannot_export("torch.export"):
        torch.export.save(program, buffer, extra_files={_PT2_FILE: about.text()})
    return buffer.getvalue()


def _from_pt2(data: bytes, place: str) -> Exported:
    check_pt2(data, place)
    extra = {_PT2_FILE: ""}
    try:
        with _quiet():
            program = torch.export.load(io.BytesIO(data), extra_files=extra)
            ask = ask_of(program.module())
    except Exception as error:  # whatever torch says of a stranger's bytes
        raise DataError(f"{place} is damaged, or of another torch than {torch.__version__}: {error!r}") from None
    return Exported(about_from(extra[_PT2_FILE], place), ask)


# --- onnx ---------------------------------------------------------------------------------------------------------


def _to_onnx(module: nn.Module, about: About) -> bytes:
    onnx = _package("onnx")
    _package("onnxscript")
    rows = torch.export.Dim("N", min=1, max=1 << 20)
    with _cannot_export("torch.onnx"), torch.no_grad():
        program = torch.onnx.export(
            module,
            (torch.rand(2, *about.shape),),
            dynamo=True,
            dynamic_shapes={"images": {0: rows}},
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        proto: Any = program.model_proto
        names: Mapping[str, str] = {KEY: about.text(), "classes": "\n".join(about.classes)}
        onnx.helper.set_model_props(proto, names)
        onnx.checker.check_model(proto)
        return bytes(proto.SerializeToString())


def _from_onnx(data: bytes, place: str) -> Exported:
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only; they come as exceptions as well
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        about = about_from(session.get_modelmeta().custom_metadata_map.get(KEY, ""), place)
    except DataError:
        raise
    except Exception as error:  # whatever onnxruntime says of a stranger's bytes
        raise DataError(f"{place} is no ONNX model that can be read: {error}") from None

    def ask(pixels: Pixels) -> Logits:
        return np.asarray(session.run(["logits"], {"images": pixels})[0], dtype=np.float32)

    return Exported(about, ask)


# --- what exporters say -------------------------------------------------------------------------------------------


@contextmanager
def _cannot_export(how: str) -> Generator[None]:
    """Put into words that a model can't be written down: usually its code decides by values that it computes."""
    try:
        with _quiet():
            yield
    except MnistlabError:
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")[:300]
        hint = "its code may branch on computed values; .safetensors takes any model"
        reason = f"{type(error).__name__}: {first}"
        raise CannotExportError(f"{how} can't write this model down: {reason} ({hint})") from error


@contextmanager
def _quiet() -> Generator[None]:
    """Hold back what exporters print and warn of: it is about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


WRITERS: Mapping[str, Callable[[nn.Module, About], bytes]] = {
    ".pt2": _to_pt2,
    ".onnx": _to_onnx,
    ".safetensors": _to_safetensors,
}
