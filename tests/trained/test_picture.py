"""Any picture becomes an image as the dataset has them, or is refused in words."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mnistlab.builtin.datasets.digits import DIGITS
from mnistlab.data import read_idx
from mnistlab.trained import formats
from mnistlab.trained.framing import Framing, measure
from mnistlab.trained.picture import MAX_BYTES, PictureError, decode, prepare, read_picture
from tests.trained.drawing import drawn, on_a_sheet, photographed

MNIST = Framing(box=20, centre=(14.5, 14.5), light=True)
MODES = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "LA",
    "PA",
    "I",
    "F",
    "I;16",
    "RGBa",
    "La",
    "RGBX",
)


def said(error: PictureError, words: str) -> None:
    assert words in str(error)
    assert len(str(error)) < 500


def shown(picture: Image.Image, framing: Framing = MNIST) -> np.ndarray:
    return prepare(picture, 28, 28, framing).pixels


# --- properties ---------------------------------------------------------------------------------------------------


def in_mode(values: np.ndarray, mode: str) -> Image.Image:
    """The same picture in any mode that Pillow has, made the way that Pillow allows."""
    picture = Image.fromarray(values)
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16) * 257)
    if mode in {"LAB", "HSV", "YCbCr", "RGBa", "La"}:
        return picture.convert("RGBA" if mode == "RGBa" else "LA" if mode == "La" else "RGB").convert(mode)
    return picture.convert("RGBA").convert(mode) if mode == "PA" else picture.convert(mode)


pixels = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 255), fill=st.sampled_from([0, 7, 255]))
)
framings = st.builds(
    Framing,
    box=st.integers(1, 60),
    centre=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    light=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(pixels, st.sampled_from(MODES), framings, st.integers(1, 30), st.integers(1, 30))
def test_any_picture_gives_an_image_of_the_right_shape_or_is_refused_in_words(values, mode, framing, height, width):
    picture = in_mode(values, mode)
    try:
        prepared = prepare(picture, height, width, framing)
    except PictureError as error:
        said(error, "nothing can be seen")
        return
    assert prepared.pixels.shape == (height, width)
    assert prepared.pixels.dtype == np.float32
    assert np.isfinite(prepared.pixels).all()
    assert 0 <= prepared.pixels.min() <= prepared.pixels.max() <= 1
    assert all(step.isprintable() for step in prepared.steps)


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float32, (9, 12), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
)
def test_floating_point_pictures_of_any_values_are_taken(values):
    try:
        assert prepare(Image.fromarray(values), 28, 28, MNIST).pixels.shape == (28, 28)
    except PictureError as error:
        said(error, "nothing can be seen")


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0", b"BM", b"II*\0"]),
)
def test_bytes_that_are_no_picture_are_refused_in_words(noise, beginning):
    try:
        decode(beginning + noise, "some.png")
    except PictureError as error:
        said(error, "some.png")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_png_is_refused_in_words(data):
    buffer = io.BytesIO()
    drawn(3, size=(20, 20), pen=2).save(buffer, "PNG")
    whole = bytearray(buffer.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[place] ^= data.draw(st.integers(1, 255))
    try:
        decode(bytes(whole[: data.draw(st.integers(0, len(whole)))]), "some.png")
    except PictureError as error:
        said(error, "some.png")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(8, 40), st.integers(0, 80), st.integers(150, 255))
def test_inverting_a_picture_changes_nothing(digit, pen, dark, light):
    picture = np.asarray(drawn(digit, size=(200, 200), pen=pen // 2, ink=dark, paper=light))
    assert np.abs(shown(Image.fromarray(picture)) - shown(Image.fromarray(255 - picture))).max() < 0.02


# --- what is done -------------------------------------------------------------------------------------------------


def digits() -> np.ndarray:
    return DIGITS.load(DIGITS.config(), None, "train").images[:40]  # type: ignore[arg-type]


def test_an_image_of_mnist_is_left_as_it_is(mnist_folder):
    images = read_idx(mnist_folder / "train-images-idx3-ubyte.gz", (3,)).values[:100]
    apart = [np.abs(shown(Image.fromarray(image)) - image / 255).max() for image in images]
    assert np.median(apart) < 0.05


def test_the_longer_side_fills_the_box_and_the_mass_lies_in_the_middle():
    image = shown(drawn(7, size=(600, 300), pen=20, scale=0.5, at=(300, 20)))
    rows, columns = np.flatnonzero(image.max(1) > 0.1), np.flatnonzero(image.max(0) > 0.1)
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
    mass = image.sum()
    assert abs((image.sum(1) @ (np.arange(28) + 0.5)) / mass - 14.5) <= 0.75
    assert abs((image.sum(0) @ (np.arange(28) + 0.5)) / mass - 14.5) <= 0.75


def test_an_ink_that_is_dark_in_the_data_comes_out_dark():
    light, dark = (shown(drawn(4), MNIST.model_copy(update={"light": light})) for light in (True, False))
    assert np.allclose(light, 1 - dark)


def test_what_was_done_is_said():
    steps = prepare(drawn(5, mode="RGBA", ink=(0, 0, 0, 255), paper=(0, 0, 0, 0), pen=6), 28, 28, MNIST).steps
    assert steps[:3] == (
        "400 x 400 pixels, RGBA",
        "transparent ground laid on white",
        "dark ink on light ground: inverted",
    )
    assert "strokes made thicker" in steps
    assert steps[-1] == "centred by mass in 28 x 28"


def test_specks_are_left_out():
    clean, dusty = drawn(1, pen=30), drawn(1, pen=30)
    for x, y in ((20, 30), (370, 350), (380, 40)):
        dusty.paste(0, (x, y, x + 5, y + 5))
    assert "3 specks left out" in prepare(dusty, 28, 28, MNIST).steps
    assert np.abs(shown(clean) - shown(dusty)).max() < 0.1


def test_framing_is_measured():
    found = measure(digits())
    assert (found.box, found.light) == (20, True)
    assert all(abs(middle - 14) < 1 for middle in found.centre)
    assert measure(255 - digits()) == found.model_copy(update={"light": False})
    assert measure(np.zeros((3, 1, 5, 7), np.uint8)).box == 7


def test_large_files_and_pictures_are_refused_before_they_are_read(tmp_path):
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(PictureError, match="at most 64 MiB"):
        read_picture(huge)
    wide = io.BytesIO()
    Image.new("1", (20_000, 5_001)).save(wide, "PNG")
    with pytest.raises(PictureError, match="at most 100,000,000 pixels"):
        decode(wide.getvalue(), "wide.png")
    with pytest.raises(PictureError, match="can't read"):
        read_picture(tmp_path / "missing.png")


def test_a_picture_is_turned_as_its_camera_was_held():
    buffer, turned = io.BytesIO(), drawn(7).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    turned.save(buffer, "PNG", exif=exif)
    assert np.array_equal(shown(decode(buffer.getvalue(), "x.png")), shown(drawn(7)))


# --- a model that knows MNIST -------------------------------------------------------------------------------------

HANDS: dict[str, Callable[[int], Image.Image]] = {
    "thick": lambda digit: drawn(digit, pen=40),
    "very thick": lambda digit: drawn(digit, pen=55),
    "thin": lambda digit: drawn(digit, size=(800, 600), pen=3, ink=20, paper=240),
    "hairline": lambda digit: drawn(digit, size=(800, 800), pen=1),
    "light on dark": lambda digit: drawn(digit, size=(300, 300), pen=18, ink=255, paper=0),
    "small": lambda digit: drawn(digit, size=(48, 48), pen=4),
    "in a corner": lambda digit: drawn(digit, size=(1000, 1000), pen=12, scale=0.3, at=(650, 20)),
    "in colour": lambda digit: drawn(digit, mode="RGB", ink=(200, 30, 30), paper=(240, 240, 200)),
    "transparent": lambda digit: drawn(digit, mode="RGBA", ink=(0, 0, 0, 255), paper=(0, 0, 0, 0)),
    "white on nothing": lambda digit: drawn(digit, mode="RGBA", ink=(255,) * 4, paper=(255, 255, 255, 0)),
    "photographed": lambda digit: photographed(1 - np.asarray(drawn(digit, size=(700, 500), pen=24)) / 255.0),
    "photographed, inverted": lambda digit: photographed(
        1 - np.asarray(drawn(digit, size=(700, 500), pen=24)) / 255.0, inverted=True
    ),
}


@pytest.fixture(scope="module")
def model(mnist_model, own_plugins):
    return formats.read(mnist_model.read_bytes(), mnist_model.name, lambda: own_plugins)


@pytest.fixture(scope="module")
def classify(model):
    def one(picture: Image.Image) -> int:
        prepared = prepare(picture, 28, 28, model.about.framing)
        return int(model.ask(prepared.pixels[None, None])[0].argmax())

    return one


@pytest.mark.simulated
@pytest.mark.parametrize("hand", HANDS)
def test_a_digit_drawn_by_hand_is_read(hand, classify):
    answers = [classify(HANDS[hand](digit)) for digit in range(10)]
    assert sum(answer == digit for digit, answer in enumerate(answers)) >= 9, answers


@pytest.mark.simulated
@pytest.mark.parametrize("count", [20, pytest.param(60, marks=pytest.mark.chaos)])
def test_real_digits_are_read_as_well_from_pictures_as_from_their_own_pixels(classify, mnist_folder, model, count):
    images = np.asarray(read_idx(mnist_folder / "train-images-idx3-ubyte.gz", (3,)).values)[6500 : 6500 + count]
    labels = np.asarray(read_idx(mnist_folder / "train-labels-idx1-ubyte.gz", (1,)).values)[6500 : 6500 + count]
    straight = int((model.ask(images[:, None].astype(np.float32) / 255).argmax(1) == labels).sum())
    assert straight >= 0.9 * count
    ways: dict[str, Callable[[np.ndarray, int], Image.Image]] = {
        "as they are": lambda image, _: Image.fromarray(image),
        "ten times as large": lambda image, _: Image.fromarray(image).resize((280, 280), Image.Resampling.BICUBIC),
        "photographed": lambda image, i: photographed(on_a_sheet(image, 50 * (i % 10)), i),
    }
    for way, make in ways.items():
        read = sum(
            classify(make(image, i)) == label for i, (image, label) in enumerate(zip(images, labels, strict=True))
        )
        assert read >= straight - count / 20, way
