"""`.pt2`: torch's own program, which torch alone loads.

Whoever loads one must trust it: torch unpickles parts of it and evaluates others. What is read here is what was written
here a moment ago, to see that it is the model.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from torch import nn

from mnistlab.plugins.registry import Registry
from mnistlab.trained.formats import Format
from mnistlab.trained.formats.tracing import ROWS, cannot_export, example
from mnistlab.trained.portable import About, Exported, about_from, ask_of

ABOUT = "mnistlab.json"  # among the archive's extra files
LOADING = """import torch
program = torch.export.load("{name}").module()  # only a file that you trust: torch may unpickle
logits = program(images)  # images: torch.float32 (N, {shape}), 0 to 1
probabilities = logits.softmax(1)"""


def _write(module: nn.Module, about: About) -> bytes:
    buffer = io.BytesIO()
    with cannot_export("torch.export"), torch.no_grad():
        program = torch.export.export(module, example(about), dynamic_shapes=ROWS)
        program.example_inputs = None  # torch would pickle them
        torch.export.save(program, buffer, extra_files={ABOUT: about.text()})
    return buffer.getvalue()


def _read(data: bytes, place: str, _: Callable[[], Registry]) -> Exported:
    extra = {ABOUT: ""}
    with cannot_export("torch.export"):
        program = torch.export.load(io.BytesIO(data), extra_files=extra)
        ask = ask_of(program.module())
    return Exported(about_from(extra[ABOUT], place), ask)


FORMAT = Format(write=_write, read=_read, loading=LOADING)
