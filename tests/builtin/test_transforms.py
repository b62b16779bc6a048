"""The built-in transforms: what holds for all of them, and one real property of each."""

from __future__ import annotations

import math

import pytest
import torch

from mnistlab.api import Config, ImageShape, domains
from mnistlab.builtin.transforms import mnistlab_transforms
from mnistlab.builtin.transforms.cutout import Cutout, build_cutout
from mnistlab.builtin.transforms.elastic import Elastic, build_elastic
from mnistlab.builtin.transforms.geometry import Affine, Rotate, Scale, build_affine, build_rotate, build_scale
from mnistlab.builtin.transforms.noise import Noise, build_noise
from mnistlab.builtin.transforms.shift import Shift, build_shift

TRANSFORMS = {transform.name: transform for transform in mnistlab_transforms()}
ALL = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=lambda t: t.name)
MNIST = ImageShape(1, 28, 28, 10)
SHAPES = [MNIST, ImageShape(3, 32, 20, 7), ImageShape(1, 8, 8, 10)]
OFF = {
    "shift": Shift(pixels=0),
    "rotate": Rotate(degrees=0),
    "scale": Scale(share=0),
    "affine": Affine(degrees=0, shift=0, scale=0, shear=0),
    "elastic": Elastic(alpha=0),
    "cutout": Cutout(size=0),
    "noise": Noise(sigma=0),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(shape: ImageShape = MNIST, count: int = 6) -> torch.Tensor:
    return torch.rand(count, shape.channels, shape.height, shape.width, generator=seeded(9))


def blob(y: float, x: float, count: int = 400, side: int = 29, width: int = 29) -> torch.Tensor:
    """Return `count` copies of a smooth spot of 1.5 pixels at (y, x) from the centre; its mass can be measured."""
    rows = torch.arange(side)[:, None] - (side - 1) / 2 - y
    columns = torch.arange(width) - (width - 1) / 2 - x
    return torch.exp(-(rows**2 + columns**2) / (2 * 1.5**2)).expand(count, 1, side, width)


def centre(images: torch.Tensor) -> torch.Tensor:
    """Return the centre of mass (y, x) of each image, from the middle of the image."""
    height, width = images.shape[2:]
    mass = images.sum(dim=(1, 2, 3))
    y = (images.sum(dim=(1, 3)) * (torch.arange(height) - (height - 1) / 2)).sum(1) / mass
    x = (images.sum(dim=(1, 2)) * (torch.arange(width) - (width - 1) / 2)).sum(1) / mass
    return torch.stack([y, x], dim=1)


def configs(config: type[Config]) -> list[Config]:
    edges = [config(**{name: v}) for name, domain in domains(config).items() for v in domain.corners()]
    return [config(), *edges]


# --- all of them --------------------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_dtype_range_and_the_input_left_alone(transform, shape):
    for config in configs(transform.config):
        images = batch(shape)
        before = images.clone()
        result = transform.build(config, shape)(images, seeded())
        assert result.shape == images.shape
        assert result.dtype == torch.float32
        assert result.device == images.device
        assert result.min() >= 0
        assert result.max() <= 1 + 1e-5
        assert torch.equal(images, before)


@ALL
def test_defaults_lie_in_their_domains_and_so_does_off(transform):
    for config in (transform.config(), OFF[transform.name]):
        for name, domain in domains(transform.config).items():
            assert domain.contains(getattr(config, name)), name
    assert set(domains(transform.config)) == set(transform.config.model_fields)


@ALL
def test_zero_is_the_identity_and_draws_nothing(transform):
    images, generator = batch(), seeded()
    before = generator.get_state()
    assert torch.equal(transform.build(OFF[transform.name], MNIST)(images, generator), images)
    assert torch.equal(generator.get_state(), before)


@ALL
def test_same_generator_state_same_result_and_the_next_call_another(transform):
    apply, images, generator = transform.build(transform.config(), MNIST), batch(), seeded()
    first, second = apply(images, generator), apply(images, generator)
    assert torch.equal(apply(images, seeded()), first)
    assert not torch.equal(first, second)


@ALL
def test_the_global_generator_is_neither_read_nor_moved(transform):
    apply, images = transform.build(transform.config(), MNIST), batch()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = apply(images, seeded())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(apply(images, seeded()), first)


@ALL
def test_each_image_gets_its_own_values_and_returns_a_new_tensor(transform):
    image = batch(count=1)
    images = image.expand(12, -1, -1, -1).contiguous()
    result = transform.build(transform.config(), MNIST)(images, seeded())
    assert result.data_ptr() != images.data_ptr()
    assert len({tuple(row.flatten().tolist()) for row in result}) > 6


@ALL
def test_channels_of_an_image_go_together(transform):
    if transform.name == "noise":
        pytest.skip("noise is drawn for each channel")
    shape = ImageShape(3, 20, 24, 10)
    grey = batch(ImageShape(1, 20, 24, 10)).expand(-1, 3, -1, -1)
    result = transform.build(transform.config(), shape)(grey, seeded())
    torch.testing.assert_close(result[:, 0], result[:, 2])


@ALL
def test_memory_format_does_not_matter(transform):
    shape = ImageShape(3, 20, 24, 10)
    apply, images = transform.build(transform.config(), shape), batch(shape)
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(apply(last, seeded()), apply(images, seeded()))


# --- each of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shift_equals_a_loop_over_images(shape):
    reach, images = 3, batch(shape, 40)
    result = build_shift(Shift(pixels=reach), shape)(images, seeded(4))
    moves = torch.randint(2 * reach + 1, (2, 40), generator=seeded(4)) - reach
    for image, moved, (down, right) in zip(images, result, moves.T.tolist(), strict=True):
        expected = torch.zeros_like(image)
        for y in range(shape.height):
            for x in range(shape.width):
                if 0 <= y + down < shape.height and 0 <= x + right < shape.width:
                    expected[:, y, x] = image[:, y + down, x + right]
        assert torch.equal(moved, expected)


def test_shift_reaches_every_move_evenly():
    images = torch.zeros(5000, 1, 9, 9)
    images[:, :, 4, 4] = 1
    spots = build_shift(Shift(pixels=2), ImageShape(1, 9, 9, 2))(images, seeded()).sum(dim=(0, 1))
    assert spots[2:7, 2:7].sum() == 5000
    assert (spots[2:7, 2:7] - 200).abs().max() < 5 * math.sqrt(200)


@pytest.mark.parametrize("sides", [(29, 29), (41, 29), (29, 41)])
def test_rotate_keeps_the_distance_and_fills_the_range_of_angles(sides):
    shape = ImageShape(1, *sides, 10)
    moved = centre(build_rotate(Rotate(degrees=30), shape)(blob(0, 8, 400, *sides), seeded()))
    torch.testing.assert_close(moved.norm(dim=1), torch.full((400,), 8.0), rtol=0, atol=0.15)
    angles = torch.rad2deg(torch.atan2(moved[:, 0], moved[:, 1]))
    assert angles.abs().max() < 31
    assert angles.min() < -28
    assert angles.max() > 28
    assert angles.mean().abs() < 3


def test_rotate_leaves_the_centre_in_place():
    moved = centre(build_rotate(Rotate(degrees=45), MNIST)(blob(0, 0, 20, 28, 28), seeded()))
    assert moved.abs().max() < 0.01


def test_scale_moves_mass_along_the_ray_by_factors_even_on_a_logarithmic_scale():
    moved = centre(build_scale(Scale(share=0.3), ImageShape(1, 29, 29, 10))(blob(6, 0), seeded()))
    factors = (moved[:, 0] / 6).log()
    assert moved[:, 1].abs().max() < 0.05
    assert factors.max() == pytest.approx(math.log(1.3), abs=0.02)
    assert factors.min() == pytest.approx(-math.log(1.3), abs=0.02)
    assert factors.mean().abs() < 0.03


def test_affine_shift_is_a_share_of_each_side():
    shape = ImageShape(1, 29, 41, 10)
    apply = build_affine(Affine(degrees=0, shift=0.2, scale=0, shear=0), shape)
    moved = centre(apply(blob(0, 0, 400, 29, 41), seeded())).abs().max(dim=0).values
    torch.testing.assert_close(moved, torch.tensor([0.2 * 29, 0.2 * 41]), rtol=0.03, atol=0)


def test_affine_shear_leans_columns_and_keeps_rows():
    apply = build_affine(Affine(degrees=0, shift=0, scale=0, shear=20), ImageShape(1, 29, 29, 10))
    beside, above = centre(apply(blob(0, 7), seeded())), centre(apply(blob(-7, 0), seeded()))
    torch.testing.assert_close(beside, torch.tensor([0.0, 7.0]).expand(400, 2), rtol=0, atol=0.1)
    assert (above[:, 0] + 7).abs().max() < 0.1
    assert above[:, 1].abs().max() == pytest.approx(7 * math.tan(math.radians(20)), rel=0.05)


@pytest.mark.parametrize("sides", [(29, 29), (29, 37)])
def test_affine_is_the_forward_map_that_its_numbers_say(sides):
    """Lean, zoom, turn, move, applied to a point on paper, is where the spot goes."""
    config = Affine(degrees=20, shift=0.1, scale=0.2, shear=15)
    shape, (y, x) = ImageShape(1, *sides, 10), (4.0, -5.0)
    moved = centre(build_affine(config, shape)(blob(y, x, 50, *sides), seeded(3)))
    numbers = torch.rand(50, 5, generator=seeded(3)) * 2 - 1
    for (turn, slant, zoom, right, down), place in zip(numbers.tolist(), moved, strict=True):
        angle, size = math.radians(20 * turn), 1.2**zoom
        leaned = size * (x - math.tan(math.radians(15 * slant)) * y)
        expected = (
            size * y * math.cos(angle) - leaned * math.sin(angle) + 0.1 * down * sides[0],
            leaned * math.cos(angle) + size * y * math.sin(angle) + 0.1 * right * sides[1],
        )
        torch.testing.assert_close(place, torch.tensor(expected), rtol=0, atol=0.1)


def test_elastic_displaces_by_alpha_pixels_everywhere_and_smoothly():
    # An image that is a ramp reads out the displacement itself, where it stays inside.
    side, count = 40, 400
    ramp = (torch.arange(side) / side).expand(count, 1, side, side)
    apply = build_elastic(Elastic(alpha=1.0, sigma=4.0), ImageShape(1, side, side, 10))
    moved = ((apply(ramp, seeded()) - ramp) * side)[:, 0, 6:-6, 6:-6]
    spread = moved.square().mean(dim=0).sqrt()
    torch.testing.assert_close(spread, torch.ones_like(spread), rtol=0.2, atol=0)
    assert moved.mean().abs() < 0.1
    steps = (moved[:, :, 1:] - moved[:, :, :-1]).square().mean().sqrt()
    # The slope of Gaussian noise smoothed with sigma is 1 / (sqrt(2) sigma) of its spread.
    assert steps == pytest.approx(1 / (math.sqrt(2) * 4), rel=0.1)


@pytest.mark.parametrize("size", [1, 5, 8])
def test_cutout_blanks_one_square_that_may_stick_out(size):
    result = build_cutout(Cutout(size=size), MNIST)(torch.ones(600, 1, 28, 28), seeded())
    areas = []
    for image in result[:, 0]:
        rows, columns = ((image == 0).any(dim=d).nonzero().flatten().tolist() for d in (1, 0))
        assert (image == 0).sum() == len(rows) * len(columns)
        for covered in (rows, columns):
            assert covered == list(range(covered[0], covered[-1] + 1))
            assert len(covered) == size or covered[0] == 0 or covered[-1] == 27
        areas.append(len(rows) * len(columns))
    # In a corner, at least half of each side is left.
    assert max(areas) == size**2
    assert min(areas) >= min(size - size // 2, size // 2 + 1) ** 2
    assert size == 1 or min(areas) < size**2


def test_noise_has_its_sigma_and_stays_in_range():
    grey = torch.full((20, 1, 28, 28), 0.5)
    result = build_noise(Noise(sigma=0.1), MNIST)(grey, seeded())
    assert result.std() == pytest.approx(0.1, rel=0.03)
    assert result.mean() == pytest.approx(0.5, abs=0.005)
    black = build_noise(Noise(sigma=0.5), MNIST)(grey * 0, seeded())
    assert black.min() == 0
    assert black.max() == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@ALL
def test_transforms_stay_on_the_device(transform):
    images = batch().cuda()
    result = transform.build(transform.config(), MNIST)(images, torch.Generator("cuda").manual_seed(0))
    assert result.is_cuda
