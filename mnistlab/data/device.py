"""The whole set on the device as uint8: no DataLoader, batches are taken by index (after K. Jordan's airbench)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from mnistlab.api import ImageShape, LabelledImages
from mnistlab.data.splits import Division, Indices

_PIECE = 4096  # images whose sums are taken at once, so that 60,000 images need no copy four times their size


@dataclass(frozen=True, kw_only=True)
class DeviceData:
    """Training and validation images uint8 (N, C, H, W) and labels int64 (N,) on one device.

    `mean` and `std` float32 (1, C, 1, 1) are those of the training part alone, of pixels scaled to [0, 1].
    """

    shape: ImageShape
    train_images: torch.Tensor
    train_labels: torch.Tensor
    validation_images: torch.Tensor
    validation_labels: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor


def to_device(images: LabelledImages, split: Division, shape: ImageShape, device: torch.device | str) -> DeviceData:
    """Put both parts of the split on `device`."""
    train_images, train_labels = upload(images, device, split.train)
    validation_images, validation_labels = upload(images, device, split.validation)
    mean, std = mean_and_std(train_images)
    return DeviceData(
        shape=shape,
        train_images=train_images,
        train_labels=train_labels,
        validation_images=validation_images,
        validation_labels=validation_labels,
        mean=mean,
        std=std,
    )


def whole(data: DeviceData) -> DeviceData:
    """Return the data with its validation images among the training images, for a training that nothing is chosen by.

    Mean and standard deviation are those of all of them. The validation part stays, and tells nothing any more.
    """
    images = torch.cat([data.train_images, data.validation_images]).contiguous(memory_format=torch.channels_last)
    labels = torch.cat([data.train_labels, data.validation_labels])
    mean, std = mean_and_std(images)
    return replace(data, train_images=images, train_labels=labels, mean=mean, std=std)


def upload(
    images: LabelledImages, device: torch.device | str, indices: Indices | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images uint8 (N, C, H, W), channels last, and labels int64 (N,) on `device`: all or some."""
    # indexing copies, which torch needs anyway: what was read from a file is read-only
    picked = np.arange(len(images.labels)) if indices is None else indices
    pixels = torch.from_numpy(images.images[picked]).to(device)
    return pixels.contiguous(memory_format=torch.channels_last), torch.from_numpy(images.labels[picked]).to(device)


def mean_and_std(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation per channel, float32 (1, C, 1, 1), of uint8 images scaled to [0, 1].

    The sums are of integers, so that they are exact, and the same on every device and with every number of threads.
    A channel without any variation has standard deviation 1, so that normalising it gives zeros.
    """
    sums = torch.zeros(2, images.shape[1], dtype=torch.int64, device=images.device)
    for piece in images.split(_PIECE):
        whole = piece.to(torch.int32)
        sums[0] += whole.sum(dim=(0, 2, 3), dtype=torch.int64)
        sums[1] += (whole * whole).sum(dim=(0, 2, 3), dtype=torch.int64)
    count = images.numel() // images.shape[1]
    mean, square = (sums.cpu().double() / count).unbind()
    std = (square - mean * mean).clamp_min(0).sqrt()
    std = torch.where(std > 0, std, 255.0)
    return _per_channel(mean, images.device), _per_channel(std, images.device)


def as_unit(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images as float32 in [0, 1], which is what transforms take."""
    return images.to(torch.float32).div_(255.0)


def standardise(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Return float images (N, C, H, W) in [0, 1] less `mean`, divided by `std`."""
    return (images - mean) / std


def _per_channel(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    return (values / 255.0).to(torch.float32).view(1, -1, 1, 1).to(device)
