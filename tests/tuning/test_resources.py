"""What a trial gets of a machine, GPUs included, without any being here."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mnistlab.errors import ResourceError
from mnistlab.experiment.spec import ResourcesSpec
from mnistlab.tuning.resources import GPU_GIB_PER_TRIAL, Gpu, Machine, Share, doubts, gpus_here, share, this_machine


def wish(**settings: object) -> ResourcesSpec:
    return ResourcesSpec.model_validate(settings)


ONE_GPU = Machine(cpus=16, gpus=1, gpu_names=("NVIDIA A100",), gpu_gib=80.0)
SMALL_GPUS = Machine(cpus=8, gpus=2, gpu_names=("A", "A"), gpu_gib=8.0)


@pytest.mark.parametrize(
    ("machine", "wished", "expected"),
    [
        (Machine(2, 0), wish(), Share(1, 0.0, 2)),
        (Machine(2, 0), wish(max_parallel=1), Share(1, 0.0, 1)),
        (Machine(5, 0), wish(cpus_per_trial=2), Share(2, 0.0, 2)),
        (ONE_GPU, wish(), Share(1, 0.0625, 16)),  # sixteen CPUs feed sixteen trials, and memory would hold 26
        (ONE_GPU, wish(gpus_per_trial=0), Share(1, 0.0, 16)),
        (ONE_GPU, wish(gpus_per_trial=0.25), Share(1, 0.25, 4)),
        (ONE_GPU, wish(gpus_per_trial=1), Share(1, 1.0, 1)),
        (ONE_GPU, wish(cpus_per_trial=4), Share(4, 0.25, 4)),
        (SMALL_GPUS, wish(), Share(1, 0.5, 4)),  # 8 GiB hold two trials each
        (SMALL_GPUS, wish(gpus_per_trial=2), Share(1, 2.0, 1)),
        (SMALL_GPUS, wish(gpus_per_trial=0.7), Share(1, 0.7, 2)),  # never half on one and half on the other
        (Machine(3, 1, gpu_gib=24.0), wish(), Share(1, 0.3333, 3)),
        (Machine(7, 2, gpu_gib=80.0), wish(), Share(1, 0.25, 7)),  # four on one and three on the other
        (Machine(8, 2, gpu_gib=80.0), wish(max_parallel=2), Share(1, 1.0, 2)),  # fewer trials get more
        (Machine(20, 2, gpu_gib=24.0, nodes=((4, 0.0), (8, 1.0), (8, 1.0))), wish(), Share(1, 0.125, 16)),
        # A node without GPUs feeds nobody: its CPUs divide no GPU.
        (Machine(64, 1, gpu_gib=80.0, nodes=((4, 1.0), (60, 0.0))), wish(), Share(1, 0.25, 4)),
        (Machine(64, 1, gpu_gib=80.0, nodes=((4, 1.0), (60, 0.0))), wish(gpus_per_trial=0), Share(1, 0.0, 64)),
        (Machine(8, 2, nodes=((4, 1.0), (4, 1.0)), silent=("b",)), wish(), Share(1, 1.0, 2)),
        (SMALL_GPUS, wish(max_parallel=2), Share(1, 1.0, 2)),
        (SMALL_GPUS, wish(max_parallel=3), Share(1, 0.5, 3)),
    ],
)
def test_share(machine: Machine, wished: ResourcesSpec, expected: Share) -> None:
    assert share(machine, wished) == expected


@pytest.mark.parametrize(
    ("machine", "wished", "words"),
    [
        (Machine(2, 0), wish(cpus_per_trial=3), "cpus_per_trial = 3, but there are 2 CPUs"),
        (Machine(2, 0), wish(gpus_per_trial=0.5), "gpus_per_trial = 0.5, but there are 0 GPUs"),
        (Machine(8, 2, nodes=((4, 1.0), (4, 1.0))), wish(gpus_per_trial=2), "one node has at most 1 of the 2 GPUs"),
        (
            Machine(64, 1, gpu_gib=80.0, nodes=((4, 1.0), (60, 0.0))),
            wish(cpus_per_trial=8),
            "cpus_per_trial = 8, but nodes with GPUs enough for a trial have at most 4 CPUs",
        ),
    ],
)
def test_what_does_not_fit_is_refused(machine: Machine, wished: ResourcesSpec, words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        share(machine, wished)


def test_a_machine_in_words() -> None:
    assert str(Machine(1, 0)) == "1 CPU"
    assert str(ONE_GPU) == "16 CPUs, 1 GPU (NVIDIA A100)"
    assert str(SMALL_GPUS) == "8 CPUs, 2 GPUs (A)"


NODES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8).map(float)), min_size=1, max_size=6)


def placed(nodes: list[tuple[int, float]], cpus: int, gpus: float) -> int:
    """Return how many trials fit, one after the other, each with its CPUs and on one GPU of one node: as Ray counts."""
    count, part = 0, round(gpus * 10_000)
    for node_cpus, node_gpus in nodes:
        free = [10_000] * int(node_gpus)
        for _ in range(node_cpus // cpus):
            on = next((i for i, left in enumerate(free) if left >= part), None)
            if on is None:
                break
            free[on] -= part
            count += 1
    return count


@given(NODES, st.integers(1, 8), st.floats(0.5, 200.0))
def test_shares_of_unlike_nodes_fit_and_none_spans_two_gpus(
    nodes: list[tuple[int, float]], cpus: int, gib: float
) -> None:
    there = Machine(sum(c for c, _ in nodes), sum(g for _, g in nodes), gpu_gib=gib, nodes=tuple(nodes))
    whole = placed(nodes, cpus, 1.0)
    assume(there.gpus and whole)
    given_to_each = share(there, wish(cpus_per_trial=cpus))
    assert 0 < given_to_each.gpus <= 1
    assert given_to_each.parallel == placed(nodes, cpus, given_to_each.gpus) >= whole
    on_one_gpu = int(1 / given_to_each.gpus + 1e-9)
    assert on_one_gpu == 1 or on_one_gpu * GPU_GIB_PER_TRIAL <= gib


@pytest.mark.parametrize(
    ("silent", "wished", "words"),
    [
        ((), wish(), []),
        (("b",), wish(gpus_per_trial=0.5), []),
        (("b",), wish(), ["node b did not say how much memory the GPUs there have, so each trial gets a whole GPU"]),
        (("b", "c"), wish(), ["nodes b, c did not say how much memory"]),
    ],
)
def test_gpus_that_can_not_be_divided_are_named(
    silent: tuple[str, ...], wished: ResourcesSpec, words: list[str]
) -> None:
    said = doubts(Machine(8, 2, silent=silent), wished)
    assert len(said) == len(words)
    assert all(text.startswith(word) for text, word in zip(said, words, strict=True))


class Cuda:
    """GPUs that are not there, with their memory and what is used of it, in GiB."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> None:
        self.gpus = gpus
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: gpus[i].name)
        monkeypatch.setattr(torch.cuda, "get_device_properties", self.properties)
        monkeypatch.setattr(torch.cuda, "device_memory_used", self.used)

    def properties(self, index: int) -> object:
        return type("Properties", (), {"total_memory": int(self.gpus[index].gib * 2**30)})

    def used(self, index: int) -> int:
        if self.gpus[index].used_gib < 0:
            raise RuntimeError("the driver does not say")
        return int(self.gpus[index].used_gib * 2**30)


def test_memory_that_others_use_is_not_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch, Gpu("NVIDIA A100", 80.0), Gpu("NVIDIA A100", 80.0, 70.0))
    there = this_machine()
    assert (there.gpus, there.gpu_gib, there.gpu_names) == (2.0, 10.0, ("NVIDIA A100", "NVIDIA A100"))
    assert share(Machine(16, 2, gpu_gib=there.gpu_gib), wish()) == Share(1, 0.3333, 6)


def test_a_driver_that_does_not_say_what_is_used_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch, Gpu("NVIDIA GeForce", 8.0, -1.0))
    assert gpus_here() == [Gpu("NVIDIA GeForce", 8.0, 0.0)]


def test_of_a_slice_of_a_gpu_the_slice_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch, Gpu("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.75, 30.0))  # what is used is that of the whole GPU
    assert this_machine().gpu_gib == 4.75


@pytest.mark.parametrize(
    ("machine", "wished", "most", "expected"),
    [
        (Machine(32, 0), wish(), 8, Share(1, 0.0, 8)),
        (Machine(4, 0), wish(), 8, Share(1, 0.0, 4)),
        (Machine(32, 0), wish(max_parallel=32), 8, Share(1, 0.0, 32)),  # who says how many is obeyed
        (Machine(32, 0), wish(max_parallel=3), 8, Share(1, 0.0, 3)),
        (ONE_GPU, wish(), 8, Share(1, 0.125, 8)),
        (ONE_GPU, wish(gpus_per_trial=0.0625), 8, Share(1, 0.0625, 8)),
        (Machine(64, 8, gpu_gib=80.0), wish(), 8, Share(1, 1.0, 8)),
        (Machine(32, 2, gpu_gib=80.0, nodes=((2, 1), (30, 1))), wish(), 8, Share(1, 0.1666, 8)),
    ],
)
def test_no_more_run_at_once_than_a_search_can_learn_from(
    machine: Machine, wished: ResourcesSpec, most: int, expected: Share
) -> None:
    assert share(machine, wished, most) == expected


@given(
    nodes=NODES,
    gib=st.sampled_from([4.0, 8.0, 24.0, 80.0]),
    cpus=st.integers(1, 4),
    gpus=st.sampled_from(["auto", 0, 0.25, 0.5, 1]),
    most=st.none() | st.integers(2, 40),
    asked=st.none() | st.integers(1, 60),
)
def test_what_runs_at_once_fits_and_keeps_to_both_limits(
    nodes: list[tuple[int, float]], gib: float, cpus: int, gpus: object, most: int | None, asked: int | None
) -> None:
    machine = Machine(sum(c for c, _ in nodes), sum(g for _, g in nodes), gpu_gib=gib, nodes=tuple(nodes))
    try:
        whole = share(machine, wish(cpus_per_trial=cpus, gpus_per_trial=gpus))
    except ResourceError:
        return
    limited = share(machine, wish(cpus_per_trial=cpus, gpus_per_trial=gpus, max_parallel=asked), most)
    assert limited.parallel == min(whole.parallel, asked or most or whole.parallel)
    assert limited.cpus == whole.cpus
    if gpus == "auto":
        assert limited.gpus >= whole.gpus
    else:
        assert limited.gpus == whole.gpus
    each = round(1 / limited.gpus - 1e-3) if limited.gpus else 0
    fitting = [min(c // cpus, int(g) * each) if each else c // cpus for c, g in nodes]
    assert sum(fitting) >= limited.parallel
    if gpus == "auto" and len(nodes) == 1 and each > 1:  # with less on each GPU, too few would run
        assert (each - 1) * machine.gpus < limited.parallel
