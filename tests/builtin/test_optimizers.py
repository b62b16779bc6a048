"""The built-in optimizers: schedules, groups, exact resuming, and Muon on convolution filters."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mnistlab.api import domains
from mnistlab.builtin.optimizers import mnistlab_optimizers
from mnistlab.builtin.optimizers.adam import AdamW, build_adamw
from mnistlab.builtin.optimizers.groups import can_fuse, decay_groups
from mnistlab.builtin.optimizers.matrices import from_matrix, has_matrix, matrix_view, to_matrix
from mnistlab.builtin.optimizers.muon import Muon, build_muon, hidden_matrices
from mnistlab.builtin.optimizers.schedules import constant, cosine, one_cycle
from mnistlab.builtin.optimizers.sgd import Sgd, build_sgd
from mnistlab.errors import PluginError

OPTIMIZERS = {optimizer.name: optimizer for optimizer in mnistlab_optimizers()}
ALL = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=lambda o: o.name)
BOTH_LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net(seed: int = 0, layout: torch.memory_format = torch.channels_last) -> nn.Module:
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2),
        nn.ReLU(), nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, 3),
    ]  # fmt: skip
    return nn.Sequential(*layers).to(memory_format=layout)


def train(module: nn.Module, stepper, steps: range) -> list[float]:
    """Train on the same eight random images, each step's own noise on top; return the losses."""
    losses = []
    images = torch.randn(8, 1, 10, 10, generator=torch.Generator().manual_seed(1))
    for step in steps:
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(step)) * 0.05
        loss = cross_entropy(module(images + noise), torch.arange(8) % 3)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        losses.append(loss.item())
    return losses


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# --- every optimizer ----------------------------------------------------------------------------------------------


@ALL
def test_defaults_lie_in_their_domains(optimizer):
    config = optimizer.config()
    assert set(domains(optimizer.config)) == set(optimizer.config.model_fields)
    for name, domain in domains(optimizer.config).items():
        assert domain.contains(getattr(config, name)), name


@ALL
@BOTH_LAYOUTS
def test_the_loss_falls(optimizer, layout):
    module = net(layout=layout)
    losses = train(module, optimizer.build(optimizer.config(), module, 150), range(150))
    assert losses[-1] < 0.5 * losses[0]


@ALL
def test_every_parameter_moves_and_gradients_are_forgotten(optimizer):
    module, before = net(), net()
    stepper = optimizer.build(optimizer.config(), module, 10)
    train(module, stepper, range(3))
    for (name, now), then in zip(module.named_parameters(), before.parameters(), strict=True):
        assert not torch.equal(now, then), name
    stepper.zero_grad()
    assert all(p.grad is None for p in module.parameters())


@ALL
@BOTH_LAYOUTS
def test_five_steps_saved_and_five_more_are_ten_steps(optimizer, layout, tmp_path):
    through, first = net(layout=layout), net(layout=layout)
    config = optimizer.config()
    train(through, optimizer.build(config, through, 10), range(10))
    stepper = optimizer.build(config, first, 10)
    train(first, stepper, range(5))
    torch.save({"module": first.state_dict(), "stepper": stepper.state_dict()}, tmp_path / "state.pt")

    kept = torch.load(tmp_path / "state.pt", weights_only=True)
    second = net(seed=1, layout=layout)
    second.load_state_dict(kept["module"])
    resumed = optimizer.build(config, second, 10)
    resumed.load_state_dict(kept["stepper"])
    train(second, resumed, range(5, 10))
    assert same_weights(second, through)


@ALL
def test_state_may_be_loaded_before_the_first_step(optimizer):
    module, other = net(), net()
    stepper, fresh = (optimizer.build(optimizer.config(), m, 6) for m in (module, other))
    fresh.load_state_dict(stepper.state_dict())
    train(module, stepper, range(3)), train(other, fresh, range(3))
    assert same_weights(module, other)


@ALL
def test_the_state_is_a_copy(optimizer):
    module = net()
    stepper = optimizer.build(optimizer.config(), module, 10)
    train(module, stepper, range(2))
    state = stepper.state_dict()
    kept = [{k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in s.items()} for s in state["parts"][0]]
    train(module, stepper, range(2))
    stepper.load_state_dict(state)
    train(module, stepper, range(2))
    for now, then in zip(state["parts"][0], kept, strict=True):
        assert all(torch.equal(now[k], then[k]) for k in then if isinstance(then[k], torch.Tensor))


@ALL
def test_the_state_holds_no_hyperparameters(optimizer):
    module, other = net(), net()
    config = optimizer.config(schedule="constant", warmup=0.0)
    stepper = optimizer.build(config, module, 10)
    train(module, stepper, range(3))
    faster = optimizer.build(config.model_copy(update={"lr": config.lr * 2}), other, 10)
    faster.load_state_dict(stepper.state_dict())
    assert faster.learning_rates[0] == pytest.approx(2 * stepper.learning_rates[0])
    train(other, faster, range(3, 4))
    assert faster.learning_rates[0] == pytest.approx(2 * config.lr)


@ALL
def test_the_position_in_the_schedule_is_kept(optimizer):
    module, other = net(), net()
    stepper, resumed = (optimizer.build(optimizer.config(), m, 10) for m in (module, other))
    train(module, stepper, range(4))
    resumed.load_state_dict(stepper.state_dict())
    assert resumed.learning_rates == stepper.learning_rates


@ALL
def test_steps_beyond_the_last_change_nothing_and_do_not_crash(optimizer):
    module = net()
    stepper = optimizer.build(optimizer.config(), module, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(module, stepper, range(4))
        weights = [p.clone() for p in module.parameters()]
        train(module, stepper, range(4, 7))
    assert stepper.learning_rates == [0.0] * len(stepper.learning_rates)
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))


@ALL
def test_state_of_another_net_is_refused(optimizer):
    module, other = net(), nn.Sequential(nn.Flatten(), nn.Linear(100, 3))
    state = optimizer.build(optimizer.config(), module, 4).state_dict()
    with pytest.raises(ValueError):
        optimizer.build(optimizer.config(), other, 4).load_state_dict(state)


@ALL
def test_frozen_parameters_stay_and_nothing_to_train_is_refused(optimizer):
    module = net()
    module[0].weight.requires_grad_(False)
    before = module[0].weight.clone()
    train(module, optimizer.build(optimizer.config(), module, 3), range(3))
    assert torch.equal(module[0].weight, before)
    with pytest.raises(PluginError, match="no trainable parameter"):
        optimizer.build(optimizer.config(), net().requires_grad_(False), 3)


@ALL
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_every_schedule_at_the_edges(optimizer, schedule, warmup):
    for total in (0, 1, 2, 5):
        module = net()
        stepper = optimizer.build(optimizer.config(schedule=schedule, warmup=warmup), module, total)
        assert all(math.isfinite(loss) for loss in train(module, stepper, range(total + 1)))


# --- schedules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [one_cycle, cosine, constant])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("total", [1, 3, 100])
def test_factors_lie_between_0_and_1(function, warmup, total):
    assert all(0 <= function(step, total, warmup) <= 1 for step in range(total + 1))
    assert function(0, total, warmup) > 0, "the first step is not wasted"


def test_one_cycle_rises_from_a_25th_and_falls_to_0():
    factors = [one_cycle(step, 100, 0.3) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[15] == pytest.approx((1 + 1 / 25) / 2)
    assert factors[30] == 1
    assert factors[65] == pytest.approx(0.5)
    assert factors[100] == 0
    assert factors[:31] == sorted(factors[:31])
    assert factors[30:] == sorted(factors[30:], reverse=True)


def test_cosine_and_constant_rise_in_a_line():
    for function, end in ((cosine, 0.0), (constant, 1.0)):
        assert [function(step, 100, 0.1) for step in range(10)] == pytest.approx([k / 10 for k in range(1, 11)])
        assert function(100, 100, 0.1) == end
    assert cosine(55, 100, 0.1) == pytest.approx(0.5)
    assert constant(0, 100, 0.0) == cosine(0, 100, 0.0) == 1


def test_the_schedule_reaches_the_optimizer():
    module = net()
    stepper = build_sgd(Sgd(lr=0.1, schedule="cosine", warmup=0.0), module, 4)
    seen = []
    for step in range(4):
        seen += {stepper.learning_rates[0]}
        train(module, stepper, range(step, step + 1))
    assert seen == pytest.approx([0.1 * cosine(step, 4, 0.0) for step in range(4)])


# --- groups -------------------------------------------------------------------------------------------------------


def test_biases_and_norms_do_not_decay():
    weights, vectors = decay_groups(net().parameters(), 0.1)
    assert {p.ndim for p in weights["params"]} == {2, 4}
    assert weights["weight_decay"] == 0.1
    assert {p.ndim for p in vectors["params"]} == {1}
    assert vectors["weight_decay"] == 0
    assert len(decay_groups([nn.Parameter(torch.ones(2))], 0.1)) == 1


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_weight_decay_shrinks_weights_alone(name):
    module, before = net(), net()
    optimizer = OPTIMIZERS[name]
    config = optimizer.config(
        schedule="constant", warmup=0.0, weight_decay=domains(optimizer.config)["weight_decay"].high
    )
    stepper = optimizer.build(config, module, 10)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stepper.step()
    for now, then in zip(module.parameters(), before.parameters(), strict=True):
        if now.ndim >= 2:
            assert now.norm() < then.norm()
        else:
            assert torch.equal(now, then)


def test_fused_kernels_are_used_where_there_are_some():
    assert can_fuse(net().parameters())
    assert not can_fuse([nn.Parameter(torch.ones(2, device="meta"))])
    module = net()
    fused = build_adamw(AdamW(), module, 5)
    assert all(part.optimizer.defaults["fused"] for part in fused._parts)


def test_fused_adamw_equals_the_plain_loop_on_channels_last_filters():
    module, reference = net(), net()
    config = AdamW(schedule="constant", warmup=0.0)
    train(module, build_adamw(config, module, 5), range(5))
    groups = decay_groups(reference.parameters(), config.weight_decay)
    plain = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), foreach=False, fused=False)
    train(reference, plain, range(5))
    for a, b in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b)


# --- muon ---------------------------------------------------------------------------------------------------------


@BOTH_LAYOUTS
def test_matrix_views_share_memory(layout):
    filters = torch.randn(4, 3, 2, 5).contiguous(memory_format=layout)
    view = matrix_view(filters)
    assert view.shape == (4, 30)
    assert view.data_ptr() == filters.data_ptr()
    assert torch.equal(to_matrix(filters, filters), view)
    assert torch.equal(from_matrix(view, filters), filters)
    other = torch.randn(4, 3, 2, 5)  # a gradient in another memory format than its filters
    assert torch.equal(from_matrix(to_matrix(other, filters), filters), other)


def test_what_cannot_be_viewed_is_left_to_adamw():
    odd = torch.randn(4, 5, 3, 2).transpose(1, 3)
    assert not has_matrix(odd)
    assert not has_matrix(torch.randn(4))
    assert has_matrix(torch.randn(4, 5).T)


def test_muon_takes_hidden_weights_and_leaves_the_classifier():
    module = net()
    assert [tuple(p.shape) for p in hidden_matrices(module)] == [(4, 1, 3, 3), (6, 4, 3, 3), (8, 54)]
    assert hidden_matrices(nn.Linear(3, 2)) == []


def test_muon_leaves_a_tied_classifier_to_adamw():
    first, last = nn.Linear(4, 4), nn.Linear(4, 4)
    last.weight = first.weight
    assert hidden_matrices(nn.Sequential(first, nn.Linear(4, 4), last))[0] is not first.weight


@BOTH_LAYOUTS
def test_muon_updates_filters_in_place_by_an_orthogonal_matrix(layout):
    module, before = net(layout=layout), net(layout=layout)
    config = Muon(schedule="constant", warmup=0.0, weight_decay=1e-4)
    address = module[3].weight.data_ptr()
    train(module, build_muon(config, module, 5), range(1))
    now, then = module[3].weight, before[3].weight
    assert now.data_ptr() == address
    assert now.stride() == then.stride()
    update = (now - then * (1 - config.lr * config.weight_decay)).flatten(1) / (config.lr * 0.2 * math.sqrt(36))
    # Five Newton-Schulz iterations leave singular values around 1, not at 1 (Jordan et al. 2024).
    assert torch.linalg.svdvals(update).sub(1).abs().max() < 0.5


def test_muon_gives_the_same_whatever_the_memory_format():
    usual, last = net(layout=torch.contiguous_format), net(layout=torch.channels_last)
    for module in (usual, last):
        train(module, build_muon(Muon(), module, 4), range(4))
    for a, b in zip(usual.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.005)  # its iterations run in bfloat16


def test_muon_follows_a_module_whose_memory_format_changes():
    module = net(layout=torch.contiguous_format)
    stepper = build_muon(Muon(schedule="constant", warmup=0.0), module, 4)
    module.to(memory_format=torch.channels_last)
    before = module[3].weight.clone()
    train(module, stepper, range(1))
    assert not torch.equal(module[3].weight, before)


def test_muon_state_has_the_shape_of_the_filters_and_moves_between_memory_formats():
    usual, last = net(layout=torch.contiguous_format), net(layout=torch.channels_last)
    stepper = build_muon(Muon(), usual, 4)
    train(usual, stepper, range(2))
    state = stepper.state_dict()
    assert state["parts"][0][1]["momentum_buffer"].shape == (6, 4, 3, 3)
    other = build_muon(Muon(), last, 4)
    other.load_state_dict(state)
    again = other.state_dict()
    for a, b in zip(state["parts"][0], again["parts"][0], strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])
