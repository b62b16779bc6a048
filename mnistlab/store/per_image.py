"""The values of metrics for each validation image: one safetensors file in a replicate's folder, beside its weights.

Comparing two plans by such a metric takes the values of both, image by image. Listing a run does not, so that the file
is read only when its values are asked for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from mnistlab.errors import DamagedError
from mnistlab.store.layout import PER_IMAGE
from mnistlab.store.results import PerImage, ReplicateResult
from mnistlab.store.tensors import read_as_written

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Values = Mapping[str, npt.NDArray[np.float32]]

HELD = 256  # files whose values are held at once: 10 MB where there are 10,000 images and one metric


def pack_per_image(
    values: Mapping[str, npt.NDArray[np.floating[Any]]],
) -> tuple[bytes, PerImage] | tuple[None, None]:
    """Return the content of the file for `values` (floats (images,) by metric), and what the result says of it.

    A metric with a value that float32 can't hold is left out; where none is left, there is nothing to write.
    """
    import numpy as np  # noqa: PLC0415 - the start of a search reads a name of the store before numpy may be imported
    from safetensors.numpy import save  # noqa: PLC0415 - a ranking that compares by accuracy needs none of it

    with np.errstate(over="ignore"):
        narrow = {name: np.ascontiguousarray(values[name], dtype=np.float32) for name in sorted(values)}
    kept = {name: value for name, value in narrow.items() if value.size and np.isfinite(value).all()}
    if not kept:
        return None, None
    data = save(kept)
    sd = {name: float(value.std(dtype=np.float64)) for name, value in kept.items()}
    images = len(next(iter(kept.values())))
    return data, PerImage(sha256=hashlib.sha256(data).hexdigest(), images=images, sd=sd)


def with_per_image(result: ReplicateResult, folder: str | os.PathLike[str]) -> ReplicateResult:
    """Return the result of a replicate whose folder is given, ready to read its values for each image.

    Where the file is missing it stays as it is: all but comparisons by those metrics can do without.
    """
    path = os.path.join(folder, PER_IMAGE)  # noqa: PTH118, RUF100 - see `reading._folders`
    about = result.per_image
    if about is None or not os.path.exists(path):  # noqa: PTH110, RUF100
        return result
    read = partial(_read, path, about.sha256, about.images, tuple(about.sd))
    return replace(result, per_image=replace(about, read=read))


@lru_cache(maxsize=HELD)
def _read(path: str, sha256: str, images: int, names: tuple[str, ...]) -> Values:
    """Return the values in a file.

    Raises:
        RunDirectoryError: if the file can't be read.
        DamagedError: if it is not the one that was written, or does not hold what its result says.
    """
    import numpy as np  # noqa: PLC0415 - as above
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.numpy import load  # noqa: PLC0415

    data = read_as_written(path, sha256)
    try:
        found = load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # KeyError: of a dtype that numpy lacks
        raise DamagedError(path, f"it can't be read as tensors: {error}") from None
    for name in names:
        value = found.get(name)
        if value is None or value.shape != (images,) or value.dtype != np.float32 or not np.isfinite(value).all():
            raise DamagedError(path, f"it does not hold {images} finite float32 values of {name}")
    return found
