"""`mnistlab train FILE`: one plan, in this process, without Ray."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Annotated

import typer

from mnistlab.cli.options import DataDir, File, Seed, Set, overrides
from mnistlab.errors import MnistlabError, PluginError

if TYPE_CHECKING:
    from rich.progress import Progress


def train(
    file: File,
    set_: Set = None,
    seed: Seed = None,
    data_dir: DataDir = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; all CPUs if not given.", show_default=False)
    ] = None,
) -> None:
    """Train the plan of all defaults of FILE (or what --set fixes) and print each epoch. The test set stays sealed."""
    from rich.console import Console

    from mnistlab import experiment, training
    from mnistlab.data import default_place, open_train
    from mnistlab.data.device import to_device
    from mnistlab.dataset import find_data
    from mnistlab.environment import check_environment
    from mnistlab.labels import plan_label
    from mnistlab.registry import installed
    from mnistlab.seeds import trial_seed
    from mnistlab.space import defaults, suggest

    check_environment()
    place = default_place(data_dir)
    wanted = experiment.load(file, overrides(set_, seed=seed), installed())
    found = find_data(wanted, place)
    if found.fallback:
        typer.echo(f"FALLBACK: {wanted.dataset.record.name} is not available ({found.fallback})", err=True)
    device = training.set_up_process(threads or len(os.sched_getaffinity(0)))
    images = open_train(found.choice.record, found.choice.config, place)
    data = to_device(images, found.division, found.info.shape, device)
    point = defaults(wanted.space)
    plan = suggest(wanted.space, lambda parameter: point[parameter.path])
    typer.echo(f"{plan_label(plan)} on {found.choice.record.name}, {device.type}", err=True)
    with _progress(Console(stderr=True)) as bar:
        task = bar.add_task("training", total=wanted.space.epochs)

        def report(epoch: int, metrics: dict[str, float]) -> None:
            bar.advance(task)
            typer.echo(
                f"epoch {epoch}/{wanted.space.epochs}  train_loss {metrics['train_loss']:.4f}  "
                f"val_loss {metrics['val_loss']:.4f}  val_accuracy {metrics['val_accuracy']:.4%}  "
                f"{metrics['images_per_second']:,.0f} images/s  {metrics['seconds']:.1f} s"
            )

        try:
            training.train(plan, trial_seed(wanted.spec.seed, 0), data, installed(), report)
        except training.DivergedError as error:
            bar.stop()
            typer.echo(f"mnistlab: the training failed: {error}", err=True)
            raise typer.Exit(1) from None
        except MnistlabError:
            raise
        except Exception as error:
            bar.stop()
            traceback.print_exc()  # whoever writes the plugin needs to see where
            raise PluginError(f"the training failed ({training.cause_of(error)}): {error!r}") from error


def _progress(console: object) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    assert isinstance(console, Console)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, redirect_stdout=console.is_terminal)
