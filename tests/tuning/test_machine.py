"""What a trial gets of a machine, GPUs included, without any being here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlab.errors import ResourceError
from mnistlab.spec import ResourcesSpec
from mnistlab.tuning.machine import Machine, Share, share


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
        # Ray fills one GPU before it uses the next: what runs fewer trials than fit gives each of them more
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
    ],
)
def test_what_does_not_fit_is_refused(machine: Machine, wished: ResourcesSpec, words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        share(machine, wished)


def test_a_machine_in_words() -> None:
    assert str(Machine(1, 0)) == "1 CPU"
    assert str(ONE_GPU) == "16 CPUs, 1 GPU (NVIDIA A100)"
    assert str(SMALL_GPUS) == "8 CPUs, 2 GPUs (A)"


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


NODES = st.lists(st.tuples(st.integers(1, 48), st.integers(0, 8).map(float)), min_size=1, max_size=4)


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
