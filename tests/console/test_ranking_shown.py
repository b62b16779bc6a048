from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from mnistlab.console.ranking import ended_text, print_leaderboard, ranking_table, result_console
from mnistlab.events import RunFinished
from mnistlab.store.results import ReplicateResult


def printed(board, width: int = 140, **options) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    print_leaderboard(board, console, **options)
    return [text.rstrip() for text in console.file.getvalue().splitlines()]


def head(lines: list[str]) -> str:
    return next(text for text in lines if text.startswith("rank"))


def test_a_whole_summary(make_board):
    lines = printed(
        make_board(),
        200,
        ended="Run over: done; 5 trials.",
        files=["runs/cnn-1/run.json"],
        commands=["mnistlab leaderboard runs/cnn-1", "mnistlab replay runs/cnn-1"],
    )
    assert lines == [
        "Run cnn-1 on mnist",
        "Rule: the mean over fresh seeds decides",
        "",
        "rank  trial  state            plan                             val_accuracy %   test acc. %  95 % interval"
        "   params  time  epochs  plugins",
        lines[4],
        "   1  0000   confirmed        cnn · adamw width=8 lr=0.008   99.48 ± 0.02 (5)  99.50 ± 0.00  99.34-99.62 %"
        "  120,000   31s     4/4  mnistlab:cnn 0.1.0",
        "   2  0001   confirmed        cnn · adamw width=9 lr=0.009   98.88 ± 0.02 (5)  98.90 ± 0.00  98.68-99.09 %"
        "  120,001   31s     4/4  mnistlab:cnn 0.1.0",
        "   3  0004   complete         resnet · adamw lr=0.012                   97.00                             "
        "  120,004   12s     4/4  mnistlab:resnet 0.1.0",
        "   4  0002   pruned           cnn · adamw width=10 lr=0.01              95.00                             "
        "  120,002   12s     1/4  mnistlab:cnn 0.1.0",
        "   -  0003   failed (plugin)  cnn · adamw width=11 lr=0.011                                               "
        "  120,003   12s     4/4  mnistlab:cnn 0.1.0",
        "",
        *lines[11:],
    ]
    assert set(lines[4]) == {"─"}
    assert lines[11].startswith("On mnist, trial 0000 (cnn · adamw width=8 lr=0.008) leads with mean test accuracy")
    assert lines[12] == "Run over: done; 5 trials."
    assert lines[-6:] == [
        "Plugins: mnistlab:cnn 0.1.0, mnistlab:resnet 0.1.0.",
        "Failed: plugin 1.",
        "  0003 (plugin): boom [/red]\\x1b]0;x\\x07\\n\\u202eevil; log: runs/cnn-1/trials/0003/log.txt",
        "Written: runs/cnn-1/run.json",
        "Next: mnistlab leaderboard runs/cnn-1",
        "Next: mnistlab replay runs/cnn-1",
    ]


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (
            {"complete": 9, "pruned": 15, "failed": 0},
            "Run over: done; 24 trials (9 complete, 15 pruned) in 4m02s, exit code 0.",
        ),
        ({}, "Run over: done; no trial ended in 4m02s, exit code 0."),
    ],
)
def test_how_a_run_ended_is_one_sentence(counts, text):
    assert ended_text(RunFinished(outcome="done", exit_code=0, counts=counts, seconds=242.0)) == text


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_table_fits_and_never_cuts_a_word(make_board, width):
    board = make_board()
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(ranking_table(board, width))
    text = console.file.getvalue()
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for word in ("trial", "0000", "confirmed", "val_accuracy %", "99.48 ± 0.02 (5)", "width=8", "failed (plugin)"):
        assert word in text


def test_columns_go_by_priority(make_board):
    board = make_board()
    shown = {width: head(printed(board, width)) for width in (70, 100, 160)}
    assert "test acc. %" not in shown[70]
    assert "95 % interval" in shown[100]
    assert "plugin" not in shown[100]
    assert "plugin" in shown[160]


def test_a_fallback_stands_on_every_row_at_any_width(make_board):
    board = make_board(dataset={"name": "digits", "requested": "mnist", "fallback": "no network"})
    for width in (80, 200):
        console = Console(file=io.StringIO(), width=width, color_system=None)
        console.print(ranking_table(board, width))
        text = " ".join(console.file.getvalue().split())
        assert text.count("[digits") == len(board.rows)
    assert "The dataset asked for was not used: no network." in printed(board)


def test_ties_are_explained(make_board):
    assert any(text.startswith("n= marks a shared rank") for text in printed(make_board(gap=1)))
    assert not any(text.startswith("n= marks a shared rank") for text in printed(make_board()))


def test_seeds_that_are_missing_are_told_with_what_follows_from_them(make_board):
    def lose(made):
        kept = [replace(r, cause="nan") if (r.trial, r.seed) == ("0000", 3) else r for r in made]
        kept = [r for r in kept if (r.trial, r.seed) != ("0000", 4)]
        return [*kept, ReplicateResult(trial="0004", replicate=0, seed=0, cause="nan")]

    lines = printed(make_board(lose=lose, experiment={"confirm": {"seeds": 5}}), 200)
    assert (
        "Trial 0000: of its confirmation 1 seed failed and 1 seed went untrained; its means lack them, and it ranks "
        "below the confirmed plans that have all of their seeds."
    ) in lines
    assert "Trial 0004: of its confirmation 1 seed failed, so it is not confirmed." in lines
    assert not any("Trial 0001: of its confirmation" in text for text in lines)


def test_the_front_is_marked_and_other_metrics_have_a_column(make_board):
    lines = printed(make_board(metrics=["val_accuracy", "parameters"]), 200)
    assert any(text.lstrip().startswith("2  0001*") for text in lines)
    assert "* on the Pareto front of val_accuracy and parameters, by the trials' own values." in lines


def test_top_says_what_it_leaves_out(make_board):
    lines = printed(make_board(), top=2)
    assert "... and 3 more trials." in lines
    assert not any("pruned" in text for text in lines)
    assert "Failed: plugin 1." in lines


def test_a_pipe_gets_plain_text_and_a_wide_table(make_board, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    stream = io.StringIO()
    print_leaderboard(make_board(), result_console(stream))
    assert "\x1b" not in stream.getvalue()
    assert "mnistlab:cnn 0.1.0" in stream.getvalue()


def test_a_stream_that_knows_only_ascii_gets_ascii(make_board):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_leaderboard(make_board(), result_console(stream))
    stream.flush()
    assert b"99.48 +/- 0.02 (5)" in raw.getvalue()
