"""From any picture of one sign to the image that a model was trained on: pure functions, each saying what it did.

The way is MNIST's own (LeCun, Bottou, Bengio, Haffner 1998): cut out the ink, scale its longer side to the box that the
dataset has (20 pixels), keeping proportions and with grey levels from the scaling, and lay it into the frame by its
centre of mass. Before that a picture has to become ink: light or dark, on paper that need be neither white nor evenly
lit.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from mnistlab.errors import DataError
from mnistlab.trained.framing import Framing
from mnistlab.util.text import counted

MAX_BYTES = 64 << 20
MAX_PIXELS = 100_000_000
WORKING_SIDE = 400  # pixels: more than any sign needs, and quick
PAPER_SIDE = 64  # pixels: enough to see how the light falls
LEAST_CONTRAST = 0.04  # of black to white: 10 of 255 grey levels
DUST = 0.03  # of the largest piece of ink: what is smaller was not meant
FINE = 8  # times the box: the scale at which strokes are made thicker or thinner
THIN, THICK, GOOD = 1.5, 4.0, 2.4  # widths of strokes in pixels of a box of 20; MNIST's lie around 2.4
DEEP_MODES = {"I": 65535.0, "I;16": 65535.0, "I;16L": 65535.0, "I;16B": 65535.0}
PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}

Grey = npt.NDArray[np.float64]


class PictureError(DataError):
    """A picture that can't be read, is too large, or on which nothing can be seen."""


@dataclass(frozen=True)
class Prepared:
    """Pixels float32 (H, W) in [0, 1] as the model's dataset has them, and in words what was done."""

    pixels: npt.NDArray[np.float32]
    steps: tuple[str, ...]


def read_picture(path: Path) -> Image.Image:
    """Return a picture from a file.

    Raises:
        PictureError: if it is no picture that Pillow can read, or a very large one.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PictureError(f"{path}: a picture may have at most {MAX_BYTES >> 20} MiB")
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise PictureError(f"can't read {path}: {error.strerror or error}") from None


def decode(data: bytes, place: str) -> Image.Image:
    """Return the picture that a file's bytes hold, turned upright as the camera held it.

    Raises:
        PictureError: if they hold none, or one of more than `MAX_PIXELS` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, for which there is a cap here, and of odd metadata
            picture = Image.open(io.BytesIO(data))
            _check_size(picture, place)
            picture.load()
            return ImageOps.exif_transpose(picture)
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"{place}: a picture may have at most {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise PictureError(f"{place} is no picture that can be read (PNG, JPEG, WebP, GIF, TIFF, BMP, ...)") from None
    except Exception as error:  # a stranger's bytes in many decoders: they may raise anything
        raise PictureError(f"{place} is a damaged picture: {type(error).__name__}: {str(error)[:200]}") from None


def _check_size(picture: Image.Image, place: str) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"{place}: {width} x {height} pixels; a picture may have at most {MAX_PIXELS:,} pixels")
    if width < 1 or height < 1:
        raise PictureError(f"{place} has no pixels")


def prepare(picture: Image.Image, height: int, width: int, framing: Framing) -> Prepared:
    """Return the sign on a picture as an image of the dataset that `framing` was measured on.

    Raises:
        PictureError: if nothing can be seen on it.
    """
    steps: list[str] = [f"{picture.width} x {picture.height} pixels, {picture.mode}"]
    ink = _ink(_grey(picture, steps.append), steps.append)
    cut = _cut(_without_dust(ink, steps.append), steps.append)
    box = _boxed(cut, min(framing.box, height, width), steps.append)
    laid = _laid(box, height, width, framing, steps.append)
    shown = laid if framing.light else 1.0 - laid
    return Prepared(np.clip(shown, 0.0, 1.0).astype(np.float32), tuple(steps))


# --- to grey ------------------------------------------------------------------------------------------------------


def _grey(picture: Image.Image, say: Callable[[str], None]) -> Grey:
    """Return luminance float64 (H, W) in [0, 1], transparency laid on paper, at most `WORKING_SIDE` wide and high."""
    _check_size(picture, "the picture")
    if picture.mode in DEEP_MODES or picture.mode == "F":
        return _deep(picture)
    if picture.has_transparency_data or picture.mode in PREMULTIPLIED:
        return _on_paper(_smaller(_converted(picture, "RGBA")), say)
    if picture.mode not in {"1", "L"}:
        say("colours as grey")
    return np.asarray(_smaller(_converted(picture, "L")), dtype=np.float64) / 255.0


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    if picture.mode in PREMULTIPLIED:
        picture = picture.convert(PREMULTIPLIED[picture.mode])
    if picture.mode == "LAB":
        picture = picture.getchannel("L")  # there is no other way out of it
    try:
        return picture.convert("RGB" if mode == "L" and picture.mode not in {"1", "L"} else mode).convert(mode)
    except ValueError as error:
        raise PictureError(f"pictures of mode {picture.mode} can't be read: {error}") from None


def _smaller(picture: Image.Image) -> Image.Image:
    longest = max(picture.size)
    if longest <= WORKING_SIDE:
        return picture
    size = tuple(max(1, round(side * WORKING_SIDE / longest)) for side in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.BOX)


def _deep(picture: Image.Image) -> Grey:
    """Return a picture of more than 8 bits: by the full range of its mode, or of its own values where it has none."""
    raw = np.nan_to_num(np.asarray(picture, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    full = DEEP_MODES.get(picture.mode, 0.0)
    if not full or raw.min() < 0 or raw.max() > full:
        low, high = float(raw.min()), float(raw.max())
        raw, full = raw - low, max(high - low, 1e-300)
    elif raw.max() <= 255:
        full = 255.0  # 8 bits in a wider coat
    scaled = np.clip(raw / full, 0.0, 1.0).astype(np.float32)
    return np.clip(np.asarray(_smaller(Image.fromarray(scaled)), dtype=np.float64), 0.0, 1.0)


def _on_paper(picture: Image.Image, say: Callable[[str], None]) -> Grey:
    """Lay a picture with transparency on white or black, whichever what is opaque can be seen on."""
    whole = np.asarray(picture, dtype=np.float64) / 255.0
    grey, alpha = whole[..., :3] @ np.array([0.299, 0.587, 0.114]), whole[..., 3]
    if alpha.min() >= 1.0:
        return grey
    mean = float((grey * alpha).sum() / alpha.sum()) if alpha.sum() > 0 else 0.0
    paper = 0.0 if mean > 0.5 else 1.0
    say(f"transparent ground laid on {'white' if paper else 'black'}")
    return grey * alpha + paper * (1.0 - alpha)


# --- to ink -------------------------------------------------------------------------------------------------------


def _ink(grey: Grey, say: Callable[[str], None]) -> Grey:
    """Return how much ink each pixel has, 0 to 1: its difference from the paper, whichever of the two is darker."""
    paper, noise = _paper(grey)
    apart = grey - paper
    light = float((np.clip(apart, 0, None) ** 3).sum()) > float((np.clip(-apart, 0, None) ** 3).sum())
    ink = np.clip(apart if light else -apart, 0.0, None)
    full = _full_ink(ink)
    if full < LEAST_CONTRAST:
        raise PictureError("nothing can be seen on the picture: it is of one colour, or nearly so")
    if float(np.ptp(paper)) > 2 / 255:
        say("uneven light taken out")
    say("light ink on dark ground" if light else "dark ink on light ground: inverted")
    floor = min(3.0 * noise, 0.4 * full)
    return np.clip((ink - floor) / (full - floor), 0.0, 1.0)


def _full_ink(ink: Grey) -> float:
    """Return the ink of a full stroke: high among what Otsu's threshold tells from the paper, yet not the one peak."""
    drawn = ink[ink > _otsu(ink)]
    return float(np.quantile(drawn, 0.8)) if drawn.size else 0.0


def _otsu(values: Grey) -> float:
    """Return the threshold that parts values best into two groups (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256)
    middle = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * middle)[:-1]
    above, total = values.size - below, float((counts * middle).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.nan_to_num(below * above * (sums / below - (total - sums) / above) ** 2)
    return float(edges[1 + int(between.argmax())])


def _paper(grey: Grey) -> tuple[Grey, float]:
    """Return the brightness of the paper everywhere, and its noise: a surface of second degree through what is no ink.

    It is laid through the margin first, then through all that lies near it, so that shadows and a slope of light
    count as paper and strokes do not. So smooth a surface needs no more than a coarse copy of the picture.
    """
    coarse = _scaled(grey, (min(PAPER_SIDE, grey.shape[1]), min(PAPER_SIDE, grey.shape[0])))
    terms, flat, margin = _surface(coarse.shape), coarse.ravel(), _margin(coarse.shape).ravel()
    coefficients = np.array([float(np.median(flat[margin])), 0, 0, 0, 0, 0])
    chosen = margin
    for turn in range(8):
        off = np.abs(flat - terms @ coefficients)
        near = (off <= max(3.7 * float(np.median(off[chosen])), 4 / 255)) & (margin if turn < 3 else True)
        if near.sum() < max(6, 0.25 * margin.sum()):
            break
        coefficients, *_ = np.linalg.lstsq(terms[near], flat[near], rcond=None)
        chosen = near
    paper = np.clip(_surface(grey.shape) @ coefficients, 0.0, 1.0).reshape(grey.shape)
    off = np.abs(grey - paper)
    return paper, 1.4826 * float(np.median(off[off <= max(float(np.median(off[_margin(grey.shape)])) * 4, 4 / 255)]))


def _surface(shape: tuple[int, ...]) -> Grey:
    """Return the terms of a polynomial of second degree at each pixel, (pixels, 6)."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    return np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1).reshape(-1, 6)


def _margin(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return which pixels lie in the outer twentieth on each side, at least one pixel."""
    inside = np.zeros(shape, dtype=np.bool_)
    rims = [max(1, side // 20) for side in shape]
    inside[tuple(slice(rim, side - rim) for rim, side in zip(rims, shape, strict=True))] = True
    return ~inside


def _without_dust(ink: Grey, say: Callable[[str], None]) -> Grey:
    """Return the ink without pieces so small that they were hardly meant, and without the grain around the others."""
    labelled: Any = ndimage.label(ink > 0.2, structure=np.ones((3, 3)))
    pieces, count = labelled
    if count < 1:
        return ink
    mass = ndimage.sum_labels(ink, pieces, np.arange(1, count + 1))
    kept = mass >= DUST * mass.max()
    if not kept.all():
        say(f"{counted(int((~kept).sum()), 'speck')} left out")
    meant = np.isin(pieces, 1 + np.flatnonzero(kept))
    reach = 1 + max(ink.shape) // 100  # the soft edge of a stroke belongs to it
    return np.where(_distance(~meant) <= reach, ink, 0.0)


# --- into the frame -----------------------------------------------------------------------------------------------


def _cut(ink: Grey, say: Callable[[str], None]) -> Grey:
    """Return the ink within the smallest box around it."""
    drawn = ink > 0.1
    if not drawn.any():
        raise PictureError("nothing can be seen on the picture")
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    say(f"ink cut out: {cut.shape[1]} x {cut.shape[0]} of {ink.shape[1]} x {ink.shape[0]}")
    return cut


def _boxed(ink: Grey, side: int, say: Callable[[str], None]) -> Grey:
    """Return the ink with its longer side scaled to `side` pixels, strokes made as wide as those that models know."""
    width = _stroke(ink) * 20 / max(ink.shape)
    size = (max(1, round(ink.shape[1] * side / max(ink.shape))), max(1, round(ink.shape[0] * side / max(ink.shape))))
    say(f"scaled to {size[0]} x {size[1]}")
    if THIN <= width <= THICK:
        return _scaled(ink, size)
    fine = _scaled(ink, (size[0] * FINE, size[1] * FINE))
    by = (GOOD if width < THIN else THICK) - width
    changed = _grown(fine, by / 2 * side / 20 * FINE)
    if changed.max() <= 0.5:  # a blot that is no stroke would vanish
        return _scaled(ink, size)
    say(f"strokes made {'thicker' if by > 0 else 'thinner'}")
    return _scaled(changed, size)


def _stroke(ink: Grey) -> float:
    """Return the width of the strokes in pixels: in a bar, four times the mean distance to its edge."""
    drawn = np.pad(ink > 0.5, 1)
    distance = _distance(drawn)
    return 4.0 * float(distance[drawn].mean() - 0.5) + 1.0 if drawn.any() else 1.0


def _grown(ink: Grey, by: float) -> Grey:
    """Return ink whose edge lies `by` pixels further out, or in where that is negative."""
    drawn = np.pad(ink > (0.25 if by > 0 else 0.5), max(0, int(by)))  # a hairline is pale
    return np.where(_distance(~drawn) - _distance(drawn) <= by, 1.0, 0.0)


def _distance(inside: npt.NDArray[np.bool_]) -> Grey:
    """Return of each true pixel how far the next false one is; 0 elsewhere."""
    return np.asarray(ndimage.distance_transform_edt(inside), dtype=np.float64)


def _scaled(ink: Grey, size: tuple[int, int]) -> Grey:
    """Return ink at another size (width, height), anti-aliased."""
    if (ink.shape[1], ink.shape[0]) == size:
        return ink
    smaller = ink.shape[1] >= size[0]
    method = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    scaled = Image.fromarray(ink.astype(np.float32)).resize(size, method)
    return np.clip(np.asarray(scaled, dtype=np.float64), 0.0, 1.0)


def _laid(box: Grey, height: int, width: int, framing: Framing, say: Callable[[str], None]) -> Grey:
    """Return the box laid into a frame, by its centre of mass as far as it stays inside."""
    mass = max(float(box.sum()), 1e-12)
    row = float(box.sum(axis=1) @ (np.arange(box.shape[0]) + 0.5)) / mass
    column = float(box.sum(axis=0) @ (np.arange(box.shape[1]) + 0.5)) / mass
    top = min(max(0, round(framing.centre[0] - row)), height - box.shape[0])
    left = min(max(0, round(framing.centre[1] - column)), width - box.shape[1])
    frame = np.zeros((height, width))
    frame[top : top + box.shape[0], left : left + box.shape[1]] = box
    say(f"centred by mass in {width} x {height}")
    return frame
