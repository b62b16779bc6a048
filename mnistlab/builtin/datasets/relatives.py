"""Fashion-MNIST and Kuzushiji-MNIST, of the same format as MNIST and harder.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
arXiv:1708.07747. T. Clanuwat and others, "Deep learning for classical Japanese literature", arXiv:1812.01718.

The hashes are the md5 of the archives that torchvision publishes. Nobody publishes hashes of what they decompress to,
so only archives are accepted. An md5 no longer withstands someone who makes two files at once, but it does withstand
whoever has to match a given one.
"""

from __future__ import annotations

from mnistlab.builtin.datasets.pinned import pinned_dataset
from mnistlab.data.files import FourFiles, four_parts

FASHION_FILES = FourFiles(
    dataset="fashion-mnist",
    torchvision="FashionMNIST",
    classes=10,
    parts=four_parts(
        [
            ("", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("", "md5:25c81989df183df01b3e8a0aad5dffbe"),
            ("", "md5:bef4ecab320f06d8554ea6380940ec79"),
            ("", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
        ]
    ),
    # the copy that Keras fetches, then the authors' repository; the bucket that torchvision names has no https
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
)

FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

KMNIST_FILES = FourFiles(
    dataset="kmnist",
    torchvision="KMNIST",
    classes=10,
    parts=four_parts(
        [
            ("", "md5:bdb82020997e1d708af4cf47b453dcf7"),
            ("", "md5:e144d726b3acfaa3e44228e80efcd344"),
            ("", "md5:5c965bf0a639b31b8f53240b1b52f4d7"),
            ("", "md5:7320c461ea6c1c855c0b718fb2a4b134"),
        ]
    ),
    mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),  # the authors' own server: no other is known
)

KMNIST_CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

FASHION_MNIST = pinned_dataset(
    FASHION_FILES, FASHION_CLASSES, "Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28x28, 10 classes."
)
KMNIST = pinned_dataset(
    KMNIST_FILES, KMNIST_CLASSES, "Kuzushiji-MNIST: 60,000 + 10,000 cursive hiragana, 28x28, 10 classes."
)
