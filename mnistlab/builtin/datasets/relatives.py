"""Fashion-MNIST and Kuzushiji-MNIST, of the same format as MNIST and harder.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
arXiv:1708.07747. T. Clanuwat and others, "Deep learning for classical Japanese literature", arXiv:1812.01718.

The hashes are the sha256 of the archives in the lists of TensorFlow Datasets (`url_checksums/fashion_mnist.txt` and
`kmnist.txt`); torchvision publishes the md5 of the same archives. Nobody publishes hashes of what they decompress to,
so only archives are accepted.
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
            ("", "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            ("", "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            ("", "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            ("", "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
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
            ("", "sha256:51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
            ("", "sha256:e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
            ("", "sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
            ("", "sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
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
