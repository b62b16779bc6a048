"""Where bfloat16 pays: images per second of each built-in model in fp32 and bf16, in turns, on one device.

This is what the fixed rule behind `precision = "auto"` rests on (`mnistlab.training.precision.uses_bf16`).

Usage: MNISTLAB_DATA=FOLDER python benchmarks/precision.py [ROUNDS] [IMAGES]
"""

from __future__ import annotations

import sys

from machine import spread, table
from plans import epoch, mnist, some

from mnistlab.data.device import DeviceData
from mnistlab.training import loop


def speed(model: str, precision: str, batch_size: int, data: DeviceData) -> float:
    """Return the images per second of one epoch."""
    return epoch(model, precision, batch_size, data)["images_per_second"]


def main(rounds: int = 3, images: int = 4000) -> None:
    """Print the table."""
    data = some(mnist(loop.set_up_process(1).type), images)
    rows = []
    for model in ("mlp", "lenet", "cnn", "resnet", "vit"):
        for batch_size in (32, 128, 512):
            found = [
                (speed(model, "bf16", batch_size, data), speed(model, "fp32", batch_size, data))
                for _ in range(rounds + 1)
            ]
            fast, plain = zip(*found[1:], strict=True)  # the first round warms up
            ratio = [a / b for a, b in found[1:]]
            rows.append((model, batch_size, spread(plain, 0), spread(fast, 0), spread(ratio, 2)))
            print(rows[-1], file=sys.stderr, flush=True)
    print(table("fp32 and bf16", ("model", "batch", "fp32, images/s", "bf16, images/s", "bf16 / fp32"), rows))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
