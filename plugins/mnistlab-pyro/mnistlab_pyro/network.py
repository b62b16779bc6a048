"""A network with a normal distribution for each weight, as a Pyro model and its guide.

The parameters of the posterior are ordinary parameters of the module, none is in Pyro's parameter store, which is one
per process: trainings that follow one another in a process share nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn
from torch.func import functional_call

from mnistlab.api import Batch, Prediction
from mnistlab_pyro import Bayesian

Weights = dict[str, Tensor]


class BayesianNetwork(nn.Module):
    """A plain network whose parameters are the means of the posterior, with the logarithms of its scales beside it.

    The posterior is a product of normals, trained by reparametrised draws (Blundell et al. 2015, arXiv:1505.05424).
    Scales are stored relative to the prior's: at 0 for all parameters posterior and prior are equal, so weight decay
    pulls towards the prior.
    """

    def __init__(self, net: nn.Module, config: Bayesian) -> None:
        super().__init__()
        self.net, self.kl_weight, self.samples = net, config.kl_weight, config.samples
        start = math.log(config.posterior_scale)
        named = dict(net.named_parameters())
        self.log_scales = nn.ParameterDict({_key(n): nn.Parameter(torch.full_like(p, start)) for n, p in named.items()})
        self.prior_scales = {n: config.prior_scale / math.sqrt(_inputs(p)) for n, p in named.items()}

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the posterior's mean weights for float (N, C, H, W), float32 (N, classes)."""
        return self.net(images).float()

    def model(self, batch: Batch) -> None:
        """Say how the labels came about: weights from the prior, then each label from its image's logits.

        The plate makes the batch stand for all training images. Smoothed labels are no data that a categorical
        distribution could have drawn, so their log-likelihood enters as a factor.
        """
        count, size = batch.train_count, len(batch.labels)
        with poutine.scale(scale=self.kl_weight):
            weights = {name: _draw(name, torch.zeros_like(p), scale) for name, p, scale in self._prior()}
        logits = functional_call(self.net, weights, (batch.images,))
        smoothing = batch.label_smoothing
        surprise = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=smoothing)
        # Without indices of its own, the plate would draw a permutation of all training images at every step.
        with pyro.plate("images", count, subsample=torch.arange(size, device=surprise.device)):
            fit = dist.Unit(-surprise, validate_args=False)  # what pyro.factor makes, unchecked as in _draw
            pyro.sample("labels", fit, obs=fit.sample())

    def guide(self, batch: Batch | None = None) -> Weights:  # noqa: ARG002 - Pyro calls both with the same arguments
        """Draw one set of weights from the posterior."""
        with poutine.scale(scale=self.kl_weight):
            return {name: _draw(name, p, scale * self.log_scales[_key(name)].exp()) for name, p, scale in self._prior()}

    def _prior(self) -> Iterator[tuple[str, Tensor, float]]:
        """Yield name, posterior mean and the prior's scale of each weight."""
        for name, parameter in self.net.named_parameters():
            yield name, parameter, self.prior_scales[name]

    def negative_elbo(self, batch: Batch) -> Tensor:
        """Return the negative evidence lower bound per training image, in nats: one draw, the KL in closed form."""
        # Draws and divergences need float32: a log-scale has more digits than bfloat16 keeps.
        with torch.autocast(batch.images.device.type, enabled=False):
            loss: Tensor = TraceMeanField_ELBO().differentiable_loss(self.model, self.guide, batch)
            return loss / batch.train_count

    def predict(self, images: Tensor) -> Prediction:
        """Return the mean prediction of `samples` networks for (N, C, H, W), each network asked about all images.

        The entropy of the mean is what is unknown in all; the mean entropy is what would be left if the weights were
        known; their difference, the mutual information of label and weights, is what more data could tell
        (Houlsby et al. 2011, arXiv:1112.5745).
        """
        with torch.autocast(images.device.type, enabled=False):
            draws = [functional_call(self.net, self.guide(), (images,)) for _ in range(self.samples)]
            each = torch.stack(draws).log_softmax(2)
        mean = each.logsumexp(0) - math.log(self.samples)
        total, expected = _entropy(mean), _entropy(each).mean(0)
        # A mutual information is never negative; what rounding leaves below 0 is cut off.
        measures = {
            "predictive_entropy": total,
            "expected_entropy": expected,
            "mutual_information": (total - expected).clamp_min(0.0),
        }
        return Prediction(logits=mean, measures=measures)


def _key(name: str) -> str:
    """Return a parameter's name as torch allows it in a ParameterDict."""
    return name.replace(".", "_")


def _inputs(parameter: Tensor) -> int:
    """Return the number of inputs that each unit of this layer weighs; 1 for a bias."""
    return parameter[0].numel()


def _draw(name: str, mean: Tensor, scale: Tensor | float) -> Tensor:
    # Unchecked: a training that diverges must end with a loss that is NaN, which mnistlab knows how to report.
    normal = dist.Normal(mean, scale, validate_args=False)
    return pyro.sample(name, normal.to_event(mean.dim()))


def _entropy(logs: Tensor) -> Tensor:
    """Return the entropy in nats of distributions given as log-probabilities (..., classes)."""
    return torch.special.entr(logs.exp()).sum(-1)
