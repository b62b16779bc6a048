"""What a step of a training copies to and from a GPU, and waits for: nothing. Found without a GPU, by fake tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from mnistlab.data.device import DeviceData
from mnistlab.plugins.discovery import selection
from mnistlab.plugins.registry import Registry, select
from mnistlab.testing.transfers import GPU, Traffic, pretended_gpu
from mnistlab.training import loop
from tests.small import SHAPE, plan_of

pytestmark = pytest.mark.simulated

OFFERS = [offer for plugin in select(selection(only_built_in=True)).plugins for offer in plugin.offers]
BUILT_IN = {kind: [o.name for o in OFFERS if o.kind == kind] for kind in ("model", "transform", "optimizer")}


def on_gpu(count: int = 8, validation: int = 8) -> DeviceData:
    images = torch.zeros(max(count, validation), 1, 28, 28, dtype=torch.uint8, device=GPU)
    labels = torch.zeros(len(images), dtype=torch.int64, device=GPU)
    mean = torch.ones(1, 1, 1, 1, device=GPU)
    return DeviceData(
        shape=SHAPE,
        train_images=images[:count],
        train_labels=labels[:count],
        validation_images=images[:validation],
        validation_labels=labels[:validation],
        mean=mean,
        std=mean,
    )


@contextmanager
def trained_on_gpu(plan: dict[str, Any], registry: Registry, count: int) -> Iterator[tuple[loop.Training, Traffic]]:
    """A training of `count` images on a GPU that is not there. Its backward pass, which needs a real one, is left out.

    That is torch's own: it moves nothing that the forward pass did not.
    """
    with pretended_gpu() as traffic, pytest.MonkeyPatch.context() as patch:
        one = loop.begin(plan, 0, on_gpu(count), registry)

        def backward(_loss: torch.Tensor) -> None:
            for parameter in one.module.parameters():
                parameter.grad = torch.empty_like(parameter)

        patch.setattr(torch.Tensor, "backward", backward)
        patch.setattr(loop, "reproducible", lambda _: nullcontext())
        yield one, traffic


def crossings_of(plan: dict[str, Any], registry: Registry, steps: int = 3) -> list[list[str]]:
    """What crosses in each step of an epoch but the first, which makes the optimizer's state, and the last."""
    with trained_on_gpu(plan, registry, steps * plan["training"]["batch_size"]) as (one, traffic):
        marks = list[int]()
        one.on_step = lambda: marks.append(len(traffic.crossings))
        loop._train_epoch(one)
        return [traffic.crossings[start:end] for start, end in pairwise(marks)]


@pytest.mark.parametrize("model", BUILT_IN["model"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_of_any_model_with_any_transform_waits_for_nothing(
    model: str, precision: str, builtins: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.amp.autocast_mode, "amp_definitely_not_available", lambda: False, raising=False)
    plan = plan_of(builtins, model, *BUILT_IN["transform"], batch_size=2, label_smoothing=0.1, precision=precision)
    assert crossings_of(plan, builtins) == [[], []]


@pytest.mark.parametrize("optimizer", BUILT_IN["optimizer"])
def test_a_step_of_any_optimizer_waits_for_nothing(optimizer: str, builtins: Registry) -> None:
    plan = plan_of(builtins, "cnn", optimizer=optimizer, batch_size=2)
    assert crossings_of(plan, builtins) == [[], []]


def test_the_loss_is_read_now_and_then_and_the_order_is_sent_once_an_epoch(builtins: Registry) -> None:
    plan = plan_of(builtins, "mlp", batch_size=2)
    every = loop.NAN_CHECK_STEPS
    with trained_on_gpu(plan, builtins, 2 * (every + 3)) as (one, traffic):
        loop._train_epoch(one)
        before = len(traffic.crossings)
        loop._train_epoch(one)
    again = [said.partition(" (")[0] for said in traffic.crossings[before:]]
    assert again == ["copies cpu to cuda", "reads a number", "reads a number", "reads a number"]


def test_an_evaluation_reads_as_much_of_many_images_as_of_few(
    builtins: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EVALUATION_BATCH", 2)
    found: list[int] = []
    for count in (4, 8):
        with trained_on_gpu(plan_of(builtins, "mlp"), builtins, 8) as (one, traffic):
            before = len(traffic.crossings)
            data = on_gpu(count)
            loop.evaluate(one, data.train_images, data.train_labels)
            found.append(len(traffic.crossings) - before)
    assert found == [1, 1]  # the mean loss


# --- the tool itself ----------------------------------------------------------------------------------------------


def read(images: torch.Tensor) -> object:
    return float(images.sum())


WAITS = {
    "a number is read": (read, "reads a number"),
    "a number decides": (lambda images: images if images.max() > 1 else -images, "reads a number"),
    "a list is sent": (lambda images: images * torch.tensor([1.0, 2.0], device=images.device)[0], "copies cpu to cuda"),
    "a constant is sent": (lambda images: images + torch.ones(28).to(images), "copies cpu to cuda"),
    "an answer is fetched": (lambda images: images.cpu(), "copies cuda to cpu"),
    "indices are on the host": (lambda images: images[torch.arange(1)], "copies indices"),
    "a mask makes a shape": (lambda images: images[images > 0], "needs values for a shape"),
}


@pytest.mark.parametrize("how", WAITS)
def test_every_way_to_wait_is_noted_with_its_place(how: str) -> None:
    change, what = WAITS[how]
    with pretended_gpu() as traffic, suppress(Exception):
        change(torch.ones(2, 1, 28, 28, device=GPU))
    assert [said.startswith(what) for said in traffic.crossings] == [True]
    assert f"{__file__}:" in traffic.crossings[0]


def test_what_stays_where_it_is_is_not_noted() -> None:
    with pretended_gpu() as traffic:
        images = torch.rand(2, 1, 28, 28, device=GPU, generator=torch.Generator(GPU))
        images[torch.arange(1, device=GPU)] = 0.5
        images.mul_(torch.tensor(2.0)).add_(images.bfloat16()).masked_fill_(images > 1, 0)
        torch.where(images > 0, images, 255.0)
        torch.ones(3).to(torch.float64).sum().item()  # on the host alone
    assert traffic.crossings == []


def test_tensors_of_two_devices_that_meet_are_an_error_as_on_a_gpu() -> None:
    with pretended_gpu(), pytest.raises(RuntimeError, match=r"on the same device|two different devices"):
        torch.ones(3, device=GPU) + torch.ones(3)


def test_a_module_moves_with_its_buffers_and_tied_weights() -> None:
    with pretended_gpu():
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
        module[1].weight = module[0].weight
        module.to(GPU)
        assert {t.device for t in module.state_dict().values()} == {GPU}
        assert module[1].weight is module[0].weight


def test_plugins_that_lend_a_seed_read_nothing_from_a_gpu(builtins: Registry) -> None:
    for name in ("kornia-horizontal-flip", "v2-random-horizontal-flip"):
        record = builtins.find("transform", name).record
        with pretended_gpu() as traffic:
            change = record.build(record.config(p=1.0), SHAPE)
            change(torch.rand(2, 1, 28, 28, device=GPU), torch.Generator(GPU))
        assert not [said for said in traffic.crossings if said.startswith("reads a number")], name
