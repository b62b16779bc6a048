"""The model families: from a plain perceptron to a small vision transformer."""

from __future__ import annotations

from typing import Any

from mnistlab.api import Model, hookimpl
from mnistlab.builtin.models import portfolios
from mnistlab.builtin.models.cnn import Cnn, build_cnn
from mnistlab.builtin.models.lenet import LeNet, build_lenet
from mnistlab.builtin.models.mlp import Mlp, build_mlp
from mnistlab.builtin.models.resnet import ResNet, build_resnet
from mnistlab.builtin.models.vit import Vit, build_vit


@hookimpl
def mnistlab_models() -> list[Model[Any]]:
    """Return the built-in model families."""
    return [
        Model(
            name="mlp",
            config=Mlp,
            build=build_mlp,
            summary="Perceptron of 1 to 4 hidden layers.",
            portfolio=portfolios.MLP,
        ),
        Model(
            name="cnn",
            config=Cnn,
            build=build_cnn,
            summary="Plain convolutional net of 1 to 4 stages.",
            portfolio=portfolios.CNN,
        ),
        Model(name="lenet", config=LeNet, build=build_lenet, summary="LeNet-5 with modern options (LeCun 1998)."),
        Model(
            name="resnet",
            config=ResNet,
            build=build_resnet,
            summary="Pre-activation residual net (He 2016).",
            portfolio=portfolios.RESNET,
        ),
        Model(name="vit", config=Vit, build=build_vit, summary="Tiny vision transformer (Dosovitskiy 2021)."),
    ]
