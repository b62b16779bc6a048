"""Of each metric it is known which of its values is better, in the words of all who ask."""

from __future__ import annotations

import pytest

from mnistlab.store.metric import FIXED, METRICS, MINIMIZED, Metric


def test_which_way_each_metric_is_better():
    assert {m for m in METRICS if Metric(m).higher_is_better} == {"val_accuracy", "images_per_second"}
    assert set(METRICS) >= MINIMIZED | FIXED


@pytest.mark.parametrize(
    ("name", "mode", "direction", "best"),
    [("val_accuracy", "max", "maximize", 3.0), ("val_loss", "min", "minimize", 1.0)],
)
def test_each_question_has_the_same_answer(name, mode, direction, best):
    metric, worst = Metric(name), 4.0 - best
    assert (metric.mode, metric.direction) == (mode, direction)
    assert metric.better(best, worst)
    assert not metric.better(worst, best)
    assert not metric.better(best, best)
    assert metric.best([2.0, best, worst]) == best
    assert sorted([2.0, worst, best], key=metric.cost) == [best, 2.0, worst]
    assert sorted([2.0, best, worst], key=metric.worth) == [worst, 2.0, best]
    assert metric.worth(metric.worth(best)) == best
