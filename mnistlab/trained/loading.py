"""An exported model from its file, ready to be asked: `mnistlab.load_model`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mnistlab.errors import MnistlabError
from mnistlab.plugins.discovery import selection
from mnistlab.plugins.registry import select
from mnistlab.trained import formats
from mnistlab.trained.portable import Exported
from mnistlab.tuning.environment import check_environment


class NoSuchModelFileError(MnistlabError):
    """A model's file that is not there, or can't be read."""

    exit_code = MnistlabError.exit_code.USAGE


def load_model(path: str | Path, *, plugins: Sequence[str | Path] = (), no_plugins: bool = False) -> Exported:
    """Return the model in a `.safetensors` or `.onnx` file that `mnistlab export` wrote, ready to be asked.

    `model.ask(images)` takes images, a numpy array float32 (N, C, H, W) of any N with pixels from 0 to 1, and returns
    logits, float32 (N, classes), whose softmax are the probabilities. Normalisation is inside. `model.about` is what
    the file says of the model: `classes` names the classes in the order of the logits, and `shape` is (C, H, W).

    A `.safetensors` is built by the plugins that are installed here; `plugins` and `no_plugins` are those of
    `mnistlab.search`. A `.onnx` needs no plugin, but onnxruntime.

    Raises:
        MnistlabError: if the file is missing, damaged, no model that mnistlab exported, or a `.pt2`, which can hold
            code; if it needs a plugin that is not here, or of another version; or if onnxruntime is missing.
    """
    check_environment()
    path = Path(path)
    try:
        if path.stat().st_size > formats.MAX_MODEL_BYTES:
            raise NoSuchModelFileError(f"{path}: {formats.TOO_LARGE}")
        data = path.read_bytes()
    except OSError as error:
        raise NoSuchModelFileError(f"can't read {path}: {error.strerror}") from None
    return formats.read(data, str(path), lambda: select(selection(map(Path, plugins), only_built_in=no_plugins)))
