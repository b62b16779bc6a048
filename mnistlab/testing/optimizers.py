"""The contract of optimizers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnistlab.api import AveragingStepper, Choice, Config, Optimizer, Stepper, domains
from mnistlab.plugins.registry import Offer
from mnistlab.testing.base import Contract
from mnistlab.testing.traces import at
from mnistlab.training.weights import pack, unpack

STEPS = 60


def small_net() -> nn.Module:
    """Return a net with every kind of parameter that optimizers tell apart: filters, matrices, biases, norms."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))


def build(offer: Offer, config: Config, module: nn.Module, steps: int = STEPS) -> Stepper:
    """Build the stepper for a training of `steps` steps."""
    return cast("Optimizer[Config]", offer.record).build(config, module, steps)


def train(module: nn.Module, stepper: Stepper, steps: int, start: int = 0) -> None:
    """Take the steps `start` to `start + steps` of a fixed training."""
    module.train()
    if isinstance(stepper, AveragingStepper):
        stepper.train()
    for step in range(start, start + steps):
        pixels = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        stepper.zero_grad()
        cross_entropy(module(pixels), torch.arange(16) % 5).backward()
        stepper.step()
    if isinstance(stepper, AveragingStepper):
        stepper.eval()


def copies(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every parameter."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


class OptimizerContract(Contract):
    """What every optimizer must keep. Each test that takes `optimizer` runs once for each optimizer of the plugin."""

    def test_optimizer_builds_everywhere_in_its_domain(self, optimizer: Offer) -> None:
        """Build at the defaults, at every corner and in between, and take two steps."""
        for config in self.points(optimizer):
            module = small_net()
            with at(f"{optimizer.name} at {config!r}"):
                stepper = build(optimizer, config, module)
                assert isinstance(stepper, Stepper), f"build returned {type(stepper).__name__}, no Stepper"
                train(module, stepper, 2)

    def test_optimizer_reduces_a_quadratic(self, optimizer: Offer) -> None:
        """Lower a convex quadratic with a curvature of 1 at the default settings, whatever its rate was chosen for."""
        torch.manual_seed(0)
        module = nn.Linear(6, 6, bias=False)
        target = module.weight.detach() + 0.05 * torch.randn(6, 6)
        stepper = build(optimizer, self.point(optimizer), module, 10 * STEPS)

        def distance() -> Tensor:
            return (module.weight - target).square().sum()

        start = float(distance().detach())
        _descend(stepper, distance, 10 * STEPS)
        end = float(distance().detach())
        assert end < 0.98 * start, (
            f"{optimizer.name}: {10 * STEPS} steps took a quadratic from {start:.4g} to {end:.4g}"
        )

    def test_optimizer_moves_every_parameter(self, optimizer: Offer) -> None:
        """Every parameter that gets gradients has changed after a while."""
        module = small_net()
        before, stepper = copies(module), build(optimizer, self.point(optimizer), module)
        train(module, stepper, STEPS // 2)
        left = [name for name, value in copies(module).items() if torch.equal(value, before[name])]
        assert not left, f"{optimizer.name}: these parameters never change: {', '.join(left)}"

    def test_optimizer_holds_each_parameter_once(self, optimizer: Offer) -> None:
        """No parameter stands in two groups: it would be stepped twice."""
        module = small_net()
        held = Counter(id(parameter) for parameter in _held(build(optimizer, self.point(optimizer), module)))
        twice = [name for name, parameter in module.named_parameters() if held[id(parameter)] > 1]
        assert not twice, f"{optimizer.name}: these parameters are held twice: {', '.join(twice)}"

    def test_optimizer_forgets_gradients(self, optimizer: Offer) -> None:
        """After `zero_grad` no gradient is left."""
        module = small_net()
        stepper = build(optimizer, self.point(optimizer), module)
        module(torch.ones(2, 1, 8, 8)).sum().backward()
        stepper.zero_grad()
        left = [name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert not left, f"{optimizer.name}: zero_grad leaves the gradients of {', '.join(left)}"

    def test_optimizer_goes_on_from_its_state(self, optimizer: Offer) -> None:
        """A training that is interrupted and goes on from the packed state ends bit for bit like one that is not."""
        config = self.point(optimizer)
        whole, ended = _whole(optimizer, config), _gone_on(optimizer, config, _interrupted(optimizer, config))
        other = [name for name, value in whole.items() if not torch.equal(value, ended[name])]
        assert not other, (
            f"{optimizer.name}: after a round trip of its state it goes on differently in {', '.join(other)}"
        )

    def test_optimizer_obeys_its_new_rate(self, optimizer: Offer) -> None:
        """Loading a state keeps the learning rate of the config: population-based training changes it midway.

        Only a setting of the name `lr` is looked at, and only if it matters from the start on: what others do after
        six steps depends on the optimizer.
        """
        domain = domains(optimizer.record.config).get("lr")
        if domain is None or isinstance(domain, Choice) or "lr" in self.fixed.get(optimizer.name, {}):
            return
        default = self.point(optimizer)
        slow, fast = (default.model_copy(update={"lr": lr}) for lr in domain.corners())
        if _same(_whole(optimizer, slow), _whole(optimizer, fast)):
            return
        kept = _interrupted(optimizer, default)
        assert not _same(_gone_on(optimizer, slow, kept), _gone_on(optimizer, fast, kept)), (
            f"{optimizer.name}: after load_state_dict it takes the same steps at lr={domain.low:g} and "
            f"lr={domain.high:g}: the rate must be that of the config, not that of the state"
        )

    def test_optimizer_switches_without_a_trace(self, optimizer: Offer) -> None:
        """An averaging stepper may be switched twice, and switched back it has the training's parameters again."""
        module = small_net()
        stepper = build(optimizer, self.point(optimizer), module)
        if not isinstance(stepper, AveragingStepper):
            half = [name for name in ("train", "eval") if hasattr(stepper, name)]
            assert not half, f"{optimizer.name}: its stepper has {half[0]}() without the other of train() and eval()"
            return
        train(module, stepper, 6)
        evaluated = copies(module)
        stepper.eval()
        assert _close(evaluated, copies(module)), f"{optimizer.name}: a second eval() changes the parameters"
        stepper.train()
        trained = copies(module)
        stepper.train()
        assert _close(trained, copies(module)), f"{optimizer.name}: a second train() changes the parameters"
        stepper.eval()
        assert _close(evaluated, copies(module)), f"{optimizer.name}: train() and eval() do not undo each other"


def _whole(optimizer: Offer, config: Config) -> dict[str, Tensor]:
    """Return the parameters after six and four steps, switched in between as at the end of an epoch."""
    module = small_net()
    stepper = build(optimizer, config, module)
    train(module, stepper, 6)
    train(module, stepper, 4, start=6)
    return copies(module)


def _interrupted(optimizer: Offer, config: Config) -> bytes:
    """Return the packed state after six steps, with that of torch's generator, which a training stores as well."""
    module = small_net()
    stepper = build(optimizer, config, module)
    train(module, stepper, 6)
    return pack({"module": module.state_dict(), "stepper": stepper.state_dict(), "torch": torch.get_rng_state()})


def _gone_on(optimizer: Offer, config: Config, kept: bytes) -> dict[str, Tensor]:
    """Return the parameters after four more steps from a packed state, in a new net and a new stepper."""
    state, module = unpack(kept), small_net()
    module.load_state_dict(state["module"])
    stepper = build(optimizer, config, module)
    stepper.load_state_dict(state["stepper"])
    torch.set_rng_state(state["torch"])
    train(module, stepper, 4, start=6)
    return copies(module)


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def _descend(stepper: Stepper, distance: Any, steps: int) -> None:
    if isinstance(stepper, AveragingStepper):
        stepper.train()
    for _ in range(steps):
        stepper.zero_grad()
        (0.5 * distance()).backward()
        stepper.step()
    if isinstance(stepper, AveragingStepper):
        stepper.eval()


def _close(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.allclose(value, other[name], rtol=1e-4, atol=1e-6) for name, value in one.items())


def _held(stepper: object) -> list[Tensor]:
    """Return the parameters in the groups of every torch optimizer that a stepper keeps, repetitions included."""
    optimizers = list(_optimizers(stepper, set()))
    return [tensor for one in optimizers for group in one.param_groups for tensor in group["params"]]


def _optimizers(value: object, seen: set[int]) -> Iterator[torch.optim.Optimizer]:
    """Yield the torch optimizers in a stepper's attributes, however nested in its own objects."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.optim.Optimizer):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in cast("list[object]", value):
            yield from _optimizers(inner, seen)
    elif not isinstance(value, (nn.Module, Tensor, type)) and hasattr(value, "__dict__"):
        for inner in vars(value).values():
            yield from _optimizers(inner, seen)
