"""A Bayesian network in mnistlab: weights with a distribution, trained by stochastic variational inference with Pyro.

The loss is the negative evidence lower bound per training image (Blundell et al. 2015, arXiv:1505.05424). The
prediction is the mean over draws of the weights, and says how sure it is: the entropy of the mean is all uncertainty,
the mean of the entropies that of the data, their difference (mutual information, Houlsby et al. 2011, arXiv:1112.5745)
that of the weights.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Annotated, cast

import pyro
import torch
from pyro.distributions import Categorical, Normal
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_sample
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from mnistlab.api import Batch, Config, Float, ImageShape, Int, Model, Prediction, hookimpl


class BayesianMlp(Config):
    """The network, its prior and where its posterior begins.

    `kl_weight` below 1 is a cold posterior (Wenzel et al. 2020, arXiv:2002.02405); `draws` are those of a prediction.
    """

    width: Annotated[int, Int(32, 512, log=True)] = 128
    depth: Annotated[int, Int(1, 3)] = 1
    prior_scale: Annotated[float, Float(0.3, 3.0, log=True)] = 1.0
    initial_scale: Annotated[float, Float(0.001, 0.05, log=True)] = 0.01
    kl_weight: Annotated[float, Float(0.01, 1.0, log=True)] = 0.1
    draws: int = 16


class Bayesian(nn.Module):
    """A network whose parameters are those of its posterior: mean and scale of every weight."""

    def __init__(self, config: BayesianMlp, shape: ImageShape) -> None:
        super().__init__()
        self.config = config
        self.sizes = (shape.pixels, *[config.width] * config.depth, shape.classes)
        with local():  # a guide makes its parameters at its first call
            self.guide = AutoNormal(self.generate, init_loc_fn=init_to_sample, init_scale=config.initial_scale)
            self.guide(torch.zeros(2, shape.pixels), torch.zeros(2, dtype=torch.long), 1.0)

    def generate(self, pixels: Tensor, labels: Tensor | None, scale: float) -> Tensor:
        """Draw weights from the prior, return logits (N, classes); `labels` are seen, and weighed by `scale`."""
        hidden = pixels.flatten(1)
        for layer, (inside, outside) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            deviation = self.config.prior_scale / inside**0.5
            weight = _draw(f"weight{layer}", hidden.new_zeros(outside, inside), deviation)
            bias = _draw(f"bias{layer}", hidden.new_zeros(outside), deviation)
            hidden = linear(gelu(hidden) if layer else hidden, weight, bias)
        if (
            labels is not None
        ):  # drawing them would make the weights of the next draw depend on how many images there are
            with pyro.plate("images", len(pixels)), pyro.poutine.scale(scale=scale):
                pyro.sample("label", Categorical(logits=hidden), obs=labels)
        return hidden

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) at the posterior's mean."""
        with local(), torch.autocast(images.device.type, enabled=False):
            conditioned = pyro.poutine.condition(self.generate, data=self.guide.median())
            return conditioned(images.float(), None, 1.0)


def loss(module: nn.Module, batch: Batch) -> Tensor:
    """Return the negative evidence lower bound per training image, in nats; label smoothing has no place in it."""
    model = cast("Bayesian", module)
    weight = model.config.kl_weight
    scale = batch.train_count / (len(batch.labels) * weight)
    with local(), torch.autocast(batch.images.device.type, enabled=False):
        bound = TraceMeanField_ELBO().differentiable_loss(
            model.generate, model.guide, batch.images.float(), batch.labels, scale
        )
    return bound * weight / batch.train_count


def predict(module: nn.Module, images: Tensor) -> Prediction:
    """Return the logarithm of the mean probability over draws of the weights, and the uncertainties in nats (N,)."""
    model = cast("Bayesian", module)
    pixels = images.float()
    with local(), torch.autocast(images.device.type, enabled=False):
        rows = torch.stack([_drawn(model, pixels) for _ in range(model.config.draws)]).log_softmax(-1)
    mean = rows.logsumexp(0) - torch.tensor(float(len(rows))).log()
    total, expected = _entropy(mean), _entropy(rows).mean(0)
    measures = {"predictive_entropy": total, "expected_entropy": expected, "mutual_information": total - expected}
    return Prediction(logits=mean, measures=measures)


def _drawn(model: Bayesian, pixels: Tensor) -> Tensor:
    """Return the logits (N, classes) for one draw of the weights, the same for all images."""
    trace = pyro.poutine.trace(model.guide).get_trace(pixels, None, 1.0)
    return pyro.poutine.replay(model.generate, trace=trace)(pixels, None, 1.0)


def _entropy(log_probabilities: Tensor) -> Tensor:
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def _draw(name: str, mean: Tensor, deviation: float) -> Tensor:
    return pyro.sample(name, Normal(mean, deviation).to_event(mean.ndim))


def local() -> AbstractContextManager[None]:
    """Return a context in which parameters belong to their module, not to Pyro's global store that all models share."""
    return cast("AbstractContextManager[None]", pyro.settings.context(module_local_params=True))


@hookimpl
def mnistlab_models() -> list[Model[BayesianMlp]]:
    """Offer the network, with a loss and a prediction of its own."""
    summary = "Bayesian network by variational inference (Pyro)."
    return [Model(name="bayesian-mlp", config=BayesianMlp, build=Bayesian, loss=loss, predict=predict, summary=summary)]
