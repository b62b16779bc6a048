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
LEAST_CONTRAST = 0.04  # of black to white: 10 of 255 grey levels
DUST = 0.03  # of the largest piece of ink: what is smaller was not meant
FINE = 8  # times the box: the scale at which strokes are made thicker or thinner
THIN, THICK, GOOD = 1.5, 4.0, 2.4  # widths of strokes in pixels of a box of 20; MNIST's lie around 2.4

Grey = npt.NDArray[np.float64]
Say = Callable[[str], None]


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
            return _loaded(data)
    except Image.DecompressionBombError:
        raise PictureError(f"{place}: a picture may have at most {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise PictureError(f"{place} is no picture that can be read (PNG, JPEG, WebP, GIF, TIFF, BMP, ...)") from None
    except Exception as error:  # a stranger's bytes in many decoders: they may raise anything
        raise PictureError(f"{place} is a damaged picture: {type(error).__name__}: {str(error)[:200]}") from None


def _loaded(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    if picture.width * picture.height > MAX_PIXELS:
        raise Image.DecompressionBombError  # as Pillow does at a cap of its own
    picture.load()
    return ImageOps.exif_transpose(picture)


def prepare(picture: Image.Image, height: int, width: int, framing: Framing) -> Prepared:
    """Return the sign on a picture as an image of the dataset that `framing` was measured on.

    Raises:
        PictureError: if nothing can be seen on it.
    """
    steps: list[str] = [f"{picture.width} x {picture.height} pixels, {picture.mode}"]
    ink = _without_dust(_ink(_grey(picture, steps.append), steps.append), steps.append)
    cut = _cut(ink)
    steps.append(f"ink cut out: {cut.shape[1]} x {cut.shape[0]} of {ink.shape[1]} x {ink.shape[0]}")
    box = _boxed(cut, min(framing.box, height, width), steps.append)
    laid = _laid(box, height, width, framing, steps.append)
    return Prepared((laid if framing.light else 1.0 - laid).astype(np.float32), tuple(steps))


# --- to grey ------------------------------------------------------------------------------------------------------


def _grey(picture: Image.Image, say: Say) -> Grey:
    """Return luminance float64 (H, W) in [0, 1], transparency laid on paper, at most `WORKING_SIDE` wide and high."""
    if picture.mode.startswith(("I", "F")):
        return _deep(picture)
    if picture.mode == "LAB":
        picture = picture.getchannel("L")  # there is no other way out of it
    if picture.mode == "RGBa":
        picture = picture.convert("RGBA")  # nor out of this one with its transparency
    if picture.has_transparency_data:
        return _on_paper(_values(picture.convert("LA")) / 255.0, say)
    if picture.mode not in {"1", "L"}:
        say("colours as grey")
    return _values(picture.convert("L")) / 255.0


def _values(picture: Image.Image) -> Grey:
    """Return the values of a picture, which is made smaller in its place."""
    picture.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(picture, dtype=np.float64)


def _deep(picture: Image.Image) -> Grey:
    """Return a picture of more than 8 bits: by a range of 8 or 16 bits, or of its own values where it has none."""
    raw = np.nan_to_num(np.asarray(picture, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(raw.min()), float(raw.max())
    if picture.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 else 65535.0  # 8 bits in a wider coat
    return _values(Image.fromarray(((raw - low) / max(high - low, 1e-300)).astype(np.float32)))


def _on_paper(picture: Grey, say: Say) -> Grey:
    """Lay luminance and opacity (H, W, 2) on white or black, whichever what is opaque can be seen on."""
    grey, alpha = picture[..., 0], picture[..., 1]
    if alpha.min() >= 1.0:
        return grey
    white = float((grey * alpha).sum()) <= 0.5 * float(alpha.sum())
    say(f"transparent ground laid on {'white' if white else 'black'}")
    return grey * alpha + white * (1.0 - alpha)


# --- to ink -------------------------------------------------------------------------------------------------------


def _ink(grey: Grey, say: Say) -> Grey:
    """Return how much ink each pixel has, 0 to 1: its difference from the paper, whichever of the two is darker."""
    paper, noise = _paper(grey)
    apart = grey - paper
    light = float((apart**3).sum()) > 0  # ink is further from the paper than the grain on its other side
    ink = np.clip(apart if light else -apart, 0.0, None)
    full = _full_ink(ink)
    if full < LEAST_CONTRAST:
        raise PictureError("nothing can be seen on the picture: it is of one colour, or nearly so")
    if float(np.ptp(paper)) > 2 / 255:
        say("uneven light taken out")
    say("light ink on dark ground" if light else "dark ink on light ground: inverted")
    floor = min(3.0 * noise, 0.4 * full)
    return np.clip((ink - floor) / (full - floor), 0.0, 1.0)


def _paper(grey: Grey) -> tuple[Grey, float]:
    """Return the brightness of the paper everywhere, and its noise: a surface of second degree through what is no ink.

    It is laid through the margin first, then through all that lies near it, so that shadows and a slope of light
    count as paper and strokes do not.
    """
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in grey.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    few = (slice(None, None, 1 + max(grey.shape) // 64),) * 2  # so smooth a surface needs no more
    margin, points, values = np.maximum(np.abs(x), np.abs(y))[few] > 0.93, terms[few], grey[few]
    surface = np.full(values.shape, np.median(values[margin]))
    coefficients = np.zeros(6)
    for turn in range(8):
        off = np.abs(values - surface)
        near = (off <= max(3.7 * float(np.median(off[margin])), 4 / 255)) & (margin | (turn > 2))
        coefficients, *_ = np.linalg.lstsq(points[near], values[near], rcond=None)
        surface = points @ coefficients
    noise = 1.4826 * float(np.median(np.abs(values - surface)[margin]))
    return np.clip(terms @ coefficients, 0.0, 1.0), noise


def _full_ink(ink: Grey) -> float:
    """Return the ink of a full stroke: high among what Otsu (1979) tells from the paper, yet not the one peak."""
    most_first = np.sort(np.append(ink, 0.0))[::-1]
    total, sums, counts = most_first.sum(), np.cumsum(most_first)[:-1], np.arange(1, most_first.size)
    others = counts[::-1]
    between = counts * others * (sums / counts - (total - sums) / others) ** 2
    drawn = 1 + int(between.argmax())
    return float(most_first[drawn // 5])


def _without_dust(ink: Grey, say: Say) -> Grey:
    """Return the ink without pieces so small that they were hardly meant, and without the grain around the others."""
    labelled: Any = ndimage.label(ink > 0.2, structure=np.ones((3, 3)))
    pieces, count = labelled
    mass = np.bincount(pieces.ravel(), weights=ink.ravel())
    mass[0] = 0.0  # the paper
    meant = mass >= DUST * mass.max()
    if specks := count - int(meant.sum()):
        say(f"{counted(specks, 'speck')} left out")
    reach = 1 + max(ink.shape) // 100  # the soft edge of a stroke belongs to it
    return np.where(_distance(~meant[pieces]) <= reach, ink, 0.0)


# --- into the frame -----------------------------------------------------------------------------------------------


def _cut(ink: Grey) -> Grey:
    """Return the ink within the smallest box around it."""
    boxes: Any = ndimage.find_objects((ink > 0.1).astype(np.int8))
    return ink[boxes[0]]


def _boxed(ink: Grey, side: int, say: Say) -> Grey:
    """Return the ink with its longer side scaled to `side` pixels, strokes made as wide as those that models know."""
    rows, columns = _sides(ink, side)
    say(f"scaled to {columns} x {rows}")
    return _scaled(_with_known_strokes(ink, say), rows, columns)


def _with_known_strokes(ink: Grey, say: Say) -> Grey:
    """Return the ink, its strokes made thicker or thinner where models of MNIST have seen none like them."""
    fine = np.pad(_scaled(ink, *_sides(ink, 20 * FINE)), 2 * FINE)  # with room to grow into
    drawn = fine > 0.4 * fine.max()
    inside, outside = _distance(drawn), _distance(~drawn)
    width = (4.0 * float(inside[drawn].mean()) - 1.0) / FINE  # a bar is four times as wide as its edge is far, in mean
    wanted = GOOD if width < THIN else min(width, THICK)
    changed = outside - inside <= (wanted - width) / 2 * FINE
    if wanted == width or not changed.any():  # a blot that is no stroke would vanish
        return ink
    say(f"strokes made {'thicker' if wanted > width else 'thinner'}")
    return _cut(changed.astype(np.float64))


def _distance(inside: npt.NDArray[np.bool_]) -> Grey:
    """Return of each true pixel how far the next false one is; 0 elsewhere."""
    return np.asarray(ndimage.distance_transform_edt(inside), dtype=np.float64)


def _sides(ink: Grey, longer: int) -> tuple[int, int]:
    """Return rows and columns of ink whose longer side is scaled to `longer` pixels."""
    rows, columns = (max(1, round(side * longer / max(ink.shape))) for side in ink.shape)
    return rows, columns


def _scaled(ink: Grey, rows: int, columns: int) -> Grey:
    """Return ink at another size, anti-aliased."""
    method = Image.Resampling.BOX if ink.shape[1] >= columns else Image.Resampling.BICUBIC
    scaled = Image.fromarray(ink.astype(np.float32)).resize((columns, rows), method)
    return np.clip(np.asarray(scaled, dtype=np.float64), 0.0, 1.0)


def _laid(box: Grey, height: int, width: int, framing: Framing, say: Say) -> Grey:
    """Return the box laid into a frame, by its centre of mass as far as it stays inside."""
    say(f"centred by mass in {width} x {height}")
    room = np.subtract((height, width), box.shape)
    middle = np.add(ndimage.center_of_mass(box), 0.5)  # there the middle of the first pixel is 0
    corner = np.clip(np.round(framing.centre - middle), 0, room).astype(int)
    return np.roll(np.pad(box, [(0, int(free)) for free in room]), corner, axis=(0, 1))
