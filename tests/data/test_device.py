"""The set on the device: the right images, and statistics of the training part alone."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from mnistlab.api import ImageShape, LabelledImages
from mnistlab.data.device import as_unit, mean_and_std, standardise, to_device, upload, whole
from mnistlab.data.splits import Division

GENERATOR = np.random.default_rng(0)


def images(channels=1, count=50):
    pixels = GENERATOR.integers(256, size=(count, channels, 6, 5), dtype=np.uint8)
    pixels.flags.writeable = False  # as what is read from a file
    return LabelledImages(images=pixels, labels=np.arange(count, dtype=np.int64) % 3)


SPLIT = Division(train=np.arange(0, 40), validation=np.arange(40, 50))


@pytest.mark.parametrize("channels", [1, 3])
def test_both_parts_arrive_as_uint8(channels):
    given = images(channels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = to_device(given, SPLIT, ImageShape(channels, 6, 5, 3), "cpu")
    np.testing.assert_array_equal(data.train_images.numpy(), given.images[:40])
    np.testing.assert_array_equal(data.validation_images.numpy(), given.images[40:])
    np.testing.assert_array_equal(data.train_labels.numpy(), given.labels[:40])
    np.testing.assert_array_equal(data.validation_labels.numpy(), given.labels[40:])
    assert data.train_images.dtype == torch.uint8
    assert data.train_labels.dtype == torch.int64
    assert data.train_images.is_contiguous(memory_format=torch.channels_last)


def test_statistics_come_from_the_training_part_alone():
    given = images(3)
    data = to_device(given, SPLIT, ImageShape(3, 6, 5, 3), "cpu")
    expected = given.images[:40] / 255.0
    np.testing.assert_allclose(data.mean.flatten(), expected.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.std.flatten(), expected.std(axis=(0, 2, 3)), rtol=1e-6)
    assert data.mean.shape == data.std.shape == (1, 3, 1, 1)
    assert data.mean.dtype == data.std.dtype == torch.float32


def test_the_whole_holds_both_parts_and_their_statistics():
    given = images(3)
    both = whole(to_device(given, SPLIT, ImageShape(3, 6, 5, 3), "cpu"))
    np.testing.assert_array_equal(both.train_images.numpy(), given.images)
    np.testing.assert_array_equal(both.train_labels.numpy(), given.labels)
    np.testing.assert_allclose(both.mean.flatten(), (given.images / 255.0).mean(axis=(0, 2, 3)), rtol=1e-6)
    assert both.train_images.is_contiguous(memory_format=torch.channels_last)


def test_statistics_over_more_images_than_are_summed_at_once():
    pixels = torch.randint(256, (9000, 1, 3, 3), dtype=torch.uint8)
    mean, std = mean_and_std(pixels)
    torch.testing.assert_close(mean.item(), (pixels.double() / 255).mean().item(), rtol=1e-6, atol=0)
    torch.testing.assert_close(std.item(), (pixels.double() / 255).std(correction=0).item(), rtol=1e-6, atol=0)


def test_normalised_training_images_have_mean_0_and_deviation_1():
    data = to_device(images(2), SPLIT, ImageShape(2, 6, 5, 3), "cpu")
    ready = standardise(as_unit(data.train_images), data.mean, data.std)
    assert ready.dtype == torch.float32
    assert ready.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ready.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(ready.std(dim=(0, 2, 3), correction=0), torch.ones(2), atol=1e-5, rtol=0)


def test_a_channel_without_variation_gives_zeros_instead_of_nan():
    black = torch.full((4, 1, 3, 3), 7, dtype=torch.uint8)
    mean, std = mean_and_std(black)
    assert std.item() == 1
    torch.testing.assert_close(standardise(as_unit(black), mean, std), torch.zeros(4, 1, 3, 3))


def test_upload_takes_everything_by_default():
    given = images()
    pixels, labels = upload(given, "cpu")
    np.testing.assert_array_equal(pixels.numpy(), given.images)
    np.testing.assert_array_equal(labels.numpy(), given.labels)
