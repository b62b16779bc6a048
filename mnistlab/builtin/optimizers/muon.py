"""Muon (Jordan et al. 2024): momentum made orthogonal, for hidden weight matrices; AdamW for everything else.

Filters of convolutions are matrices (outputs, inputs x height x width), as in Jordan's airbench. Orthogonalisation
does not care about the order of columns, so that filters stored channels_last are updated in place, without a copy.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from mnistlab.api import Float, Stepper
from mnistlab.builtin.optimizers.groups import can_fuse, decay_groups, trainable
from mnistlab.builtin.optimizers.matrices import has_matrix, matrix_view, to_matrix
from mnistlab.builtin.optimizers.schedules import Scheduled, schedule_of
from mnistlab.builtin.optimizers.stepper import Part, ScheduledStepper

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Muon(Scheduled):
    """Muon for hidden matrices and filters; AdamW for the classifier, biases, norms and embeddings."""

    lr: Annotated[float, Float(1e-3, 0.1, log=True)] = 0.01
    """Highest learning rate of the matrices, scaled to AdamW's step size (Liu et al. 2025, "Muon is scalable")."""
    momentum: Annotated[float, Float(0.5, 0.98)] = 0.9
    weight_decay: Annotated[float, Float(1e-4, 1.0, log=True)] = 1e-2
    """Share of each weight (not of biases and norms) taken off per step, times the learning rate."""
    adamw_lr: Annotated[float, Float(1e-4, 3e-2, log=True)] = 3e-3
    """Highest learning rate of everything else."""


def build_muon(config: Muon, module: nn.Module, total_steps: int) -> Stepper:
    """Return the stepper for `module`, with a schedule over `total_steps`."""
    parameters = trainable(module)
    hidden = hidden_matrices(module)
    chosen = {id(p) for p in hidden}
    rest = [p for p in parameters if id(p) not in chosen]
    parts = [_muon(config, hidden)] if hidden else []
    if rest:
        groups = decay_groups(rest, config.weight_decay)
        adamw = torch.optim.AdamW(groups, lr=config.adamw_lr, betas=(0.9, 0.99), fused=can_fuse(rest))
        parts.append(Part.whole(adamw))
    return ScheduledStepper(parts, schedule_of(config, total_steps))


def hidden_matrices(module: nn.Module) -> list[Tensor]:
    """Return the weights of all linear and convolution layers but the last, the classifier, in the order defined."""
    weights: list[Tensor] = [m.weight for m in module.modules() if isinstance(m, _LAYERS)]
    unique = list({id(w): w for w in weights[:-1] if w is not weights[-1]}.values())
    return [w for w in unique if w.requires_grad and has_matrix(w)]


def _muon(config: Muon, weights: list[Tensor]) -> Part:
    """Return torch's Muon over matrix views of `weights`, which it refreshes before each step."""
    views = [matrix_view(w) for w in weights]
    optimizer = torch.optim.Muon(
        views,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        adjust_lr_fn="match_rms_adamw",
    )

    def refresh(*_: Any) -> None:
        # The weights' memory is asked for anew each time: `module.to(...)` may have moved it since.
        for weight, view in zip(weights, views, strict=True):
            view.data = matrix_view(weight)
            view.grad = None if weight.grad is None else to_matrix(weight.grad, weight)

    def forget(*_: Any) -> None:
        for view in views:
            view.grad = None

    optimizer.register_step_pre_hook(refresh)
    optimizer.register_step_post_hook(forget)
    return Part(optimizer, tuple(weights))
