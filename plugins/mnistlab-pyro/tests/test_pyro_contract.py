import mnistlab_pyro
import pyro
import pytest
import torch
from mnistlab_pyro import Bayesian, BayesianMlp

from mnistlab.api import ImageShape
from mnistlab.testing import PluginContract

SHAPE = ImageShape(1, 8, 8, 3)


class TestContract(PluginContract):
    plugin = mnistlab_pyro
    samples = 3


def test_the_parameters_are_those_of_the_posterior_and_of_nobody_else():
    model = Bayesian(BayesianMlp(width=32, depth=2), SHAPE)
    names = {name for name, _ in model.named_parameters()}
    sites = [f"{kind}{layer}" for kind in ("weight", "bias") for layer in range(3)]
    assert names == {f"guide.{half}.{site}_unconstrained" for half in ("locs", "scales") for site in sites}
    assert len(pyro.get_param_store()) == 0


def test_uncertainties_add_up_and_are_the_same_for_a_row_alone():
    model = Bayesian(BayesianMlp(initial_scale=0.05), SHAPE).eval()
    images = torch.randn(6, 1, 8, 8)
    with torch.inference_mode():
        torch.manual_seed(0)
        whole = mnistlab_pyro.predict(model, images)
        torch.manual_seed(0)
        alone = mnistlab_pyro.predict(model, images[:1])
    found = whole.measures
    assert torch.allclose(whole.logits.exp().sum(1), torch.ones(6), atol=1e-5)
    assert torch.allclose(found["predictive_entropy"], found["expected_entropy"] + found["mutual_information"])
    assert (found["mutual_information"] > 0).all()
    assert torch.allclose(found["mutual_information"][:1], alone.measures["mutual_information"], atol=1e-5)


EXPERIMENT = """
name = "bayes"
[data]
dataset = "digits"
[model.bayesian-mlp]
[optimizer.adamw]
weight_decay = { high = 0.001 }
lr = 0.01
[training]
epochs = 12
batch_size = 32
[search]
trials = 1
[confirm]
top = 1
seeds = 2
"""


@pytest.fixture
def searched(lab):
    lab.write("bayes.toml", EXPERIMENT)
    ran = lab.run("search", "bayes.toml")
    assert ran.code == 0, ran.err
    return lab.last_run()


def test_its_uncertainty_is_among_the_metrics_of_a_trial(searched):
    (trial,) = searched.trials
    assert trial.metrics["val_accuracy"] > 0.9
    for epoch in trial.history:
        parts = epoch["val_expected_entropy"] + epoch["val_mutual_information"]
        assert epoch["val_predictive_entropy"] == pytest.approx(parts, rel=1e-4)
    assert trial.history[-1]["val_predictive_entropy"] < trial.history[0]["val_predictive_entropy"]
    assert all(replicate.test.accuracy > 0.85 for replicate in searched.replicates)
    assert all("val_mutual_information" in replicate.metrics for replicate in searched.replicates)


def test_wrong_answers_are_less_certain():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32) - 0.3
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    model = Bayesian(BayesianMlp(), ImageShape(1, 8, 8, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(300):
        rows = torch.randint(0, 1000, (64,))
        batch = mnistlab_pyro.Batch(images=images[rows], labels=labels[rows], label_smoothing=0.0, train_count=1000)
        optimizer.zero_grad()
        mnistlab_pyro.loss(model, batch).backward()
        optimizer.step()
    with torch.inference_mode():
        found = mnistlab_pyro.predict(model.eval(), images[1000:])
    wrong = found.logits.argmax(1) != labels[1000:]
    uncertainty = found.measures["predictive_entropy"]
    assert 0 < wrong.double().mean() < 0.2
    assert uncertainty[wrong].mean() > 2 * uncertainty[~wrong].mean()
