"""Data: finding, fetching, checking and splitting image sets.

Everything here needs numpy alone; what puts images on a device is in `mnistlab.data.device`, which needs torch and is
therefore imported by those who train, not from here.
"""

from mnistlab.data.fetch import LIMITS, Archive, Limits, fetch
from mnistlab.data.files import FourFiles, Part, four_parts
from mnistlab.data.idx import IdxArray, read_idx
from mnistlab.data.loading import images_digest, open_test, open_train, prepare_dataset
from mnistlab.data.locate import Found, default_place, find_or_fetch, load_split
from mnistlab.data.splits import Division, part_of, split_indices

__all__ = [
    "LIMITS",
    "Archive",
    "Division",
    "Found",
    "FourFiles",
    "IdxArray",
    "Limits",
    "Part",
    "default_place",
    "fetch",
    "find_or_fetch",
    "four_parts",
    "images_digest",
    "load_split",
    "open_test",
    "open_train",
    "part_of",
    "prepare_dataset",
    "read_idx",
    "split_indices",
]
