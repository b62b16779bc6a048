"""What a trial gets of a machine, GPUs included, without any being here."""

from __future__ import annotations

import pytest

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
