"""The built-in datasets."""

from __future__ import annotations

from typing import Any

from mnistlab.api import Dataset, hookimpl
from mnistlab.builtin.datasets.digits import DIGITS
from mnistlab.builtin.datasets.mnist import MNIST
from mnistlab.builtin.datasets.own import IDX
from mnistlab.builtin.datasets.relatives import FASHION_MNIST, KMNIST


@hookimpl
def mnistlab_datasets() -> list[Dataset[Any]]:
    """Offer MNIST, two of its descendants, the digits of scikit-learn, and the user's own files."""
    return [MNIST, FASHION_MNIST, KMNIST, DIGITS, IDX]
