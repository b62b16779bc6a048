"""Every closed set of words on the command line knows the nearest word, whatever its case."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunCli

RUN = Path(__file__).parents[1] / "assets" / "run-of-format-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.toml").write_text('name = "x"\n[data]\ndataset = "digits"\n[model.mlp]\n', encoding="utf-8")
    (tmp_path / "Nets.py").touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "letters").symlink_to(RUN)
    return tmp_path


WORDS = [
    ("check good.toml --set search.scheduler=ASHA", "did you mean 'asha'?"),
    ("check good.toml --set search.algorithm=Random", "did you mean 'random'?"),
    ("check good.toml --set search.metric=VAL_LOSS", "did you mean 'val_loss'?"),
    ("check good.toml --set data.split=Writer", "did you mean 'writer'?"),
    ("check good.toml --set data.dataset=MNIST", "did you mean 'mnist'?"),
    ("check good.toml --set data.offline_fallback=Digits", "did you mean 'digits'?"),
    ("check good.toml --set training.precision=FP32", "did you mean 'fp32'?"),
    ("check good.toml --set model.MLP.depth=1", "did you mean 'mlp'?"),
    ("check good.toml --set model.mlp.Depth=1", "did you mean 'depth'?"),
    ("check good.toml --set model.mlp.activation=ReLU", "did you mean 'relu'?"),
    ("check good.toml --set optimizer.ADAM.lr=0.001", "did you mean 'adam'?"),
    ("check good.toml --set optimizer.adam.schedule=ONE_CYCLE", "did you mean 'one-cycle'?"),
    ("check good.toml --set transform.Shift.pixels=1", "did you mean 'shift'?"),
    ("check good.toml --set Search.trials=1", "did you mean 'search'?"),
    ("check good.toml --set plugins.allow=MNISTLAP", "did you mean 'mnistlab'?"),
    ("check GOOD.TOML", "good.toml'?"),
    ("check good.toml --plugin nets.py", "did you mean 'Nets.py'?"),
    ("search good.toml --ui PLAIN", "did you mean 'plain'?"),
    ("search good.toml --color Never", "did you mean 'never'?"),
    ("search good.toml --log MLflow", "did you mean 'mlflow'?"),
    ("train good.toml --model MLP", "did you mean 'mlp'?"),
    ("leaderboard letters --format Latex", "did you mean 'latex'?"),
    ("leaderboard letters --sort Rank", "did you mean 'rank'?"),
    ("leaderboard letters --dataset DIGITS", "did you mean 'digits'?"),
    ("leaderboard Letters", "did you mean 'letters'?"),
    ("compare letters:0001 0002", "did you mean 'letters:0002'?"),
    ("compare letters 2", "did you mean 'letters:0002'?"),
    ("report letters --format HTML", "did you mean 'html'?"),
    ("report letters -o page.htm", "did you mean 'html'?"),
    ("export letters -o net.ONNX", "did you mean '.onnx'?"),
    ("reproduce LETTERS", "did you mean 'letters'?"),
    ("status Letters", "did you mean 'letters'?"),
    ("status letters --svg x.svg --theme Dark", "did you mean 'dark'?"),
    ("plugins info ADAMW", "did you mean 'adamw'?"),
    ("plugins check Mnistlap", "did you mean 'mnistlab'?"),
    ("plugins new tiny --kind Model", "did you mean 'model'?"),
]


@pytest.mark.parametrize(("line", "hint"), WORDS, ids=[line for line, _ in WORDS])
@pytest.mark.usefixtures("folder")
def test_a_word_that_is_nearly_right_names_the_right_one(line: str, hint: str, run_here: RunCli) -> None:
    ran = run_here(*line.split())
    assert ran.code != 0
    assert hint in ran.err


def test_a_name_that_is_near_to_none_of_many_shows_a_few_and_how_to_list_the_rest(
    run_here: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MNISTLAB_DISABLE")
    text = run_here("plugins", "info", "qqqq").err
    assert " more (list them with: mnistlab plugins check)" in text
    assert text.partition("known: ")[2].count(",") < 6
