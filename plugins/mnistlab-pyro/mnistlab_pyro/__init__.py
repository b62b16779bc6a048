"""Bayesian networks for mnistlab: a distribution over weights, fitted with Pyro by stochastic variational inference.

Pyro is imported when a network is built, so that listing the plugins stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from mnistlab.api import Batch, Config, Float, ImageShape, Int, Model, Prediction, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mnistlab_pyro.network import BayesianNetwork


class Bayesian(Config):
    """What all networks here share: the prior, the first guess of the posterior, and how both are used."""

    prior_scale: Annotated[float, Float(0.3, 3.0, log=True)] = 1.0
    """Standard deviation of a weight's prior times the root of its unit's inputs (Neal 1996), so that it means the
    same at every width; a bias counts as having one input."""
    posterior_scale: Annotated[float, Float(0.01, 0.5, log=True)] = 0.2
    """Standard deviation of each weight's posterior at the start of training, as a share of the prior's."""
    kl_weight: Annotated[float, Float(1e-3, 1.0, log=True)] = 0.1
    """Weight of the divergence from the prior in the loss. 1 is Bayes' rule; below, the posterior is "cold": it trusts
    the data more than the model says it should, and usually predicts better (Wenzel et al. 2020, arXiv:2002.02405)."""
    samples: Annotated[int, Field(ge=1)] = 8
    """Networks drawn from the posterior for each prediction. With few, part of what the posterior leaves open is not
    seen: the mutual information comes out too low, by about one part in `samples`."""


class BayesianMlp(Bayesian):
    """A perceptron with ReLU."""

    depth: Annotated[int, Int(1, 3)] = 2
    """Number of hidden layers."""
    width: Annotated[int, Int(32, 1024, log=True)] = 256
    """Units of each hidden layer."""


class BayesianCnn(Bayesian):
    """Stages of a 3 x 3 convolution, ReLU and a pooling that halves the map, then one dense layer."""

    depth: Annotated[int, Int(1, 3)] = 2
    """Number of stages; the smaller side needs at least 2 to the power of `depth` pixels."""
    width: Annotated[int, Int(8, 64, log=True)] = 16
    """Channels of the first stage; each further stage has twice as many."""


def build_mlp(config: BayesianMlp, shape: ImageShape) -> nn.Module:
    """Return a Bayesian perceptron, float (N, C, H, W) -> float32 (N, classes)."""
    from mnistlab_pyro.nets import perceptron  # noqa: PLC0415
    from mnistlab_pyro.network import BayesianNetwork  # noqa: PLC0415 - Pyro takes a second or two

    return BayesianNetwork(perceptron(config.depth, config.width, shape), config)


def build_cnn(config: BayesianCnn, shape: ImageShape) -> nn.Module:
    """Return a Bayesian convolutional net, float (N, C, H, W) -> float32 (N, classes).

    Raises:
        ValueError: if the images are too small to be halved `depth` times.
    """
    from mnistlab_pyro.nets import convolutional  # noqa: PLC0415
    from mnistlab_pyro.network import BayesianNetwork  # noqa: PLC0415 - Pyro takes a second or two

    return BayesianNetwork(convolutional(config.depth, config.width, shape), config)


def loss(module: nn.Module, batch: Batch) -> Tensor:
    """Return an unbiased estimate of the negative evidence lower bound, in nats per training image."""
    return cast("BayesianNetwork", module).negative_elbo(batch)


def predict(module: nn.Module, images: Tensor) -> Prediction:
    """Return what the mean of several networks drawn from the posterior says of float (N, C, H, W).

    Its measures are predictive_entropy, expected_entropy and mutual_information, float32 (N,), in nats.
    """
    return cast("BayesianNetwork", module).predict(images)


@hookimpl
def mnistlab_models() -> list[Model[Any]]:
    """Return the Bayesian networks."""
    mlp = "Bayesian perceptron, mean-field posterior."
    cnn = "Bayesian convolutional net, mean-field posterior."
    return [
        Model(name="bayesian-mlp", config=BayesianMlp, build=build_mlp, summary=mlp, loss=loss, predict=predict),
        Model(name="bayesian-cnn", config=BayesianCnn, build=build_cnn, summary=cnn, loss=loss, predict=predict),
    ]
