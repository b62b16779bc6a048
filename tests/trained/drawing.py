"""Digits drawn by a hand that is a list of points, with any pen on any paper."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

STROKES = {
    0: [[(50, 10), (25, 25), (20, 50), (28, 80), (50, 92), (72, 80), (80, 50), (75, 25), (50, 10)]],
    1: [[(50, 8), (50, 92)]],
    2: [[(22, 30), (35, 12), (60, 10), (76, 25), (70, 48), (45, 70), (22, 90), (80, 90)]],
    3: [[(25, 15), (55, 10), (74, 25), (66, 42), (45, 48), (70, 55), (78, 74), (60, 90), (25, 86)]],
    4: [[(35, 8), (22, 55), (78, 55)], [(65, 30), (65, 95)]],
    5: [[(75, 10), (32, 10), (28, 45), (55, 42), (76, 58), (72, 82), (50, 92), (24, 84)]],
    6: [[(65, 8), (38, 30), (25, 60), (32, 85), (55, 92), (74, 78), (68, 58), (48, 52), (28, 64)]],
    7: [[(20, 12), (78, 12), (52, 50), (40, 92)]],
    8: [
        [
            *((50, 48), (28, 35), (30, 15), (50, 8), (70, 15), (72, 34)),
            *((50, 48), (26, 68), (30, 88), (50, 94), (72, 86), (74, 66), (50, 48)),
        ]
    ],
    9: [[(72, 30), (55, 48), (32, 42), (26, 24), (40, 10), (62, 10), (73, 28), (70, 60), (60, 92)]],
}
Colour = int | tuple[int, ...]


def drawn(
    digit: int,
    *,
    size: tuple[int, int] = (400, 400),
    pen: int = 22,
    ink: Colour = 0,
    paper: Colour = 255,
    mode: str = "L",
    scale: float = 1.0,
    at: tuple[int, int] = (0, 0),
) -> Image.Image:
    """A digit drawn with a round pen of `pen` pixels."""
    picture = Image.new(mode, size, paper)
    draw, unit = ImageDraw.Draw(picture), min(size) / 100 * scale
    for stroke in STROKES[digit]:
        points = [(at[0] + x * unit, at[1] + y * unit) for x, y in stroke]
        draw.line(points, fill=ink, width=pen, joint="curve")
        for x, y in points if pen > 2 else ():
            draw.ellipse([x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2], fill=ink)
    return picture


def photographed(ink: np.ndarray, seed: int = 0, *, inverted: bool = False) -> Image.Image:
    """Ink (H, W) in [0, 1] on paper that is lit from one side, with the grain of a camera."""
    y, x = np.meshgrid(*(np.linspace(0, 1, side) for side in ink.shape), indexing="ij")
    paper = 110 + 90 * x + 40 * y
    grain = np.random.default_rng(seed).normal(0, 6, ink.shape)
    grey = np.clip(paper * (1 - 0.75 * ink) + grain, 0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if inverted else grey).convert("RGB")


def on_a_sheet(digit: np.ndarray, left: int = 200) -> np.ndarray:
    """A uint8 (28, 28) digit, 600 pixels high, as ink (H, W) in [0, 1] on a sheet of 800 x 1100."""
    large = np.asarray(Image.fromarray(digit).resize((600, 600), Image.Resampling.BICUBIC)) / 255.0
    sheet = np.zeros((800, 1100))
    sheet[100:700, left : left + 600] = large
    return sheet
