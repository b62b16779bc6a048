"""How the digits of a dataset lie in their frame, measured, so that a picture can be laid into it in the same way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

MEASURED = 2000  # images: their median no longer moves
INK = 0.1  # of full ink: what counts as drawn


class Framing(BaseModel):
    """Where ink lies in an image: MNIST's is light, in a box of 20 x 20, with its centre of mass in the middle.

    `box` is the longer side of the box around the ink and `centre` the centre of mass (row, column), in pixels, the
    middle of the first pixel being 0.5; `light` tells whether ink is lighter than its ground.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    box: int = Field(ge=1, le=4096)
    centre: tuple[float, float]
    light: bool


def measure(images: npt.NDArray[np.uint8]) -> Framing:
    """Return the framing of images uint8 (N, C, H, W): medians over the first `MEASURED` of them."""
    grey = images[:MEASURED].mean(axis=1) / 255.0
    edge = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    light = bool(np.median(edge) < 0.5)
    ink = grey if light else 1.0 - grey
    marked = ink > INK
    whole = marked.any(axis=(1, 2))
    if not whole.any():
        return Framing(box=max(ink.shape[1:]), centre=(ink.shape[1] / 2, ink.shape[2] / 2), light=light)
    ink, marked = ink[whole], marked[whole]
    sides = np.maximum(_extent(marked.any(axis=2)), _extent(marked.any(axis=1)))
    mass = ink.sum(axis=(1, 2))
    rows = (ink.sum(axis=2) @ (np.arange(ink.shape[1]) + 0.5)) / mass
    columns = (ink.sum(axis=1) @ (np.arange(ink.shape[2]) + 0.5)) / mass
    centre = (round(float(np.median(rows)), 3), round(float(np.median(columns)), 3))
    return Framing(box=int(np.median(sides)), centre=centre, light=light)


def _extent(marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return of each row of bool (N, length) the distance from its first to its last true, both included."""
    length = marked.shape[1]
    return np.asarray(length - marked[:, ::-1].argmax(axis=1) - marked.argmax(axis=1), dtype=np.int64)
