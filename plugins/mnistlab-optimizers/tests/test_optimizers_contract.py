import mnistlab_optimizers
import pytest
import torch
from mnistlab_optimizers.collection import EXCLUDED
from mnistlab_optimizers.free import FreeAdamW, adamw
from mnistlab_optimizers.stepper import Scheduled, schedule_of
from pytorch_optimizer import get_supported_optimizers

from mnistlab.testing import PluginContract


class TestContract(PluginContract):
    plugin = mnistlab_optimizers
    samples = 1


def test_every_optimizer_of_the_library_is_offered_or_excluded_with_a_reason():
    offered = {record.name for record in mnistlab_optimizers.mnistlab_optimizers()}
    library = {*get_supported_optimizers()}
    assert library <= offered | EXCLUDED.keys()
    assert EXCLUDED.keys() <= library
    assert not offered & EXCLUDED.keys()
    assert {"schedulefree-adamw", "schedulefree-radam", "schedulefree-sgd"} <= offered


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.0), ("linear", 1 / 90), ("constant", 1.0)])
def test_the_schedule_warms_up_and_decays(schedule, last):
    factor = schedule_of(Scheduled(schedule=schedule, warmup=0.1), 100)
    factors = [factor(step) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert factors[10] == 1.0
    assert factors[-1] == pytest.approx(last, abs=1e-3)


def test_schedule_free_evaluates_an_average_of_what_it_trains():
    module = torch.nn.Linear(4, 2)
    stepper = adamw(FreeAdamW(warmup=0.0), module, 100)
    for _ in range(20):
        stepper.zero_grad()
        module(torch.ones(1, 4)).square().sum().backward()
        stepper.step()
    trained = module.weight.detach().clone()
    stepper.eval()
    assert not torch.allclose(trained, module.weight, atol=1e-6)
    stepper.train()
    assert torch.allclose(trained, module.weight, atol=1e-6)


def test_a_state_is_taken_up_under_other_settings():
    module = torch.nn.Linear(4, 2)
    slow, fast = (adamw(FreeAdamW(lr=lr), module, 100) for lr in (1e-3, 1e-2))
    fast.load_state_dict(slow.state_dict())
    assert fast.optimizer.param_groups[0]["lr"] == 1e-2
