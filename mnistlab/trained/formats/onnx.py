"""`.onnx`: a graph that any ONNX runtime runs, in any language. It holds no code."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from mnistlab.errors import DataError, MnistlabError
from mnistlab.plugins.registry import Registry
from mnistlab.trained.formats import Format
from mnistlab.trained.formats.tracing import ROWS, cannot_export, example
from mnistlab.trained.portable import KEY, About, Exported, Logits, Pixels, about_from

LOADING = """import onnxruntime
session = onnxruntime.InferenceSession("{name}")
(logits,) = session.run(["logits"], {{"images": images}})  # images: numpy float32 (N, {shape}), 0 to 1"""


class MissingExtraError(MnistlabError):
    """A package of the extra `mnistlab[export]` that is needed and not installed."""

    exit_code = MnistlabError.exit_code.DATA_OR_PLUGIN


def _write(module: nn.Module, about: About) -> bytes:
    onnx = _package("onnx")
    _package("onnxscript")
    with cannot_export("torch.onnx"), torch.no_grad():
        program = torch.onnx.export(
            module,
            example(about),
            dynamo=True,
            dynamic_shapes=ROWS,
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


def _read(data: bytes, place: str, _: Callable[[], Registry]) -> Exported:
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


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        install = "pip install 'mnistlab[export]'"
        raise MissingExtraError(f"the package '{name}' can't be imported ({error}); {install}") from None


FORMAT = Format(write=_write, read=_read, loading=LOADING)
