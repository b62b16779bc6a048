"""`mnistlab train FILE`: one plan, in this process, without Ray."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnistlab.cli.options import DataDir, File, NoPlugins, Plugins, Seed, Set, overrides
from mnistlab.errors import ExitCode, MachineError, MnistlabError, PluginError, SpecError, must_be_one_of

if TYPE_CHECKING:
    from rich.progress import Progress

    from mnistlab.data.device import DeviceData
    from mnistlab.experiment.dataset import Data
    from mnistlab.experiment.space import Space
    from mnistlab.plugins.registry import Registry

Epoch = tuple[int, Mapping[str, float]]


class NothingLearntError(MnistlabError):
    """The training came to nothing, by no fault of a plugin's code: the loss became NaN or infinite."""

    exit_code = ExitCode.NO_TRIAL_SUCCEEDED


def train(
    file: File,
    set_: Set = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Train this one of FILE's models.", show_default=False)
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option("--optimizer", metavar="NAME", help="Train with this one of FILE's.", show_default=False),
    ] = None,
    seed: Seed = None,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    no_plugins: NoPlugins = False,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="CPU threads; a trial's if not given.", show_default=False),
    ] = None,
) -> None:
    """Train the plan of all defaults of FILE (or what --set fixes) and print each epoch. The test set stays sealed."""
    from mnistlab.data import default_place
    from mnistlab.experiment import loader
    from mnistlab.experiment.dataset import find_data
    from mnistlab.plugins.discovery import selection
    from mnistlab.tuning.environment import check_environment
    from mnistlab.util.seal import sealed
    from mnistlab.util.text import plan_label

    check_environment()
    files = selection(plugin or (), only_built_in=no_plugins)
    wanted, registry = loader.open_with(file, overrides(set_, seed=seed), files)
    chosen = {"model": model, "optimizer": optimizer}
    plan = _plan(wanted.space, chosen)
    for taken in _taken(wanted.space, chosen):
        typer.echo(taken, err=True)
    found = find_data(wanted, default_place(data_dir))
    if found.fallback:
        typer.echo(f"FALLBACK: {wanted.dataset.record.name} is not available ({found.fallback})", err=True)
    data = _upload(found, threads or wanted.spec.resources.cpus_per_trial)
    typer.echo(f"{plan_label(plan)} on {found.choice.record.name}, {data.train_images.device.type}", err=True)
    try:
        with sealed():
            _show(_epochs(plan, wanted.spec.seed, data, registry), wanted.space.epochs)
    except (PluginError, MachineError) as error:
        if error.__cause__:  # whoever writes the plugin needs to see where
            traceback.print_exception(error.__cause__)
        raise


def _upload(found: Data, threads: int) -> DeviceData:
    """Set up this process for training and return the dataset on the device to train on."""
    from mnistlab.data.device import to_device
    from mnistlab.training import loop

    device = loop.set_up_process(threads)
    return to_device(found.images, found.division, found.info.shape, device)


def _plan(space: Space, chosen: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the plan of all defaults with the model and the optimizer that were `chosen`, or else the first ones.

    Raises:
        SpecError: if the experiment names no such model or optimizer.
    """
    from mnistlab.experiment.space import suggest

    wanted = {kind: name for kind, name in chosen.items() if name is not None}
    known = _alternatives(space)
    faults = [must_be_one_of(f"--{k}", name, known[k]) for k, name in wanted.items() if name not in known[k]]
    if faults:
        raise SpecError("train", faults)
    point = {p.path: p.default for p in space.parameters()} | wanted
    return suggest(space, lambda parameter: point[parameter.path])


def _alternatives(space: Space) -> dict[str, list[str]]:
    """Return the names that an experiment gives its models and its optimizers, in the order of the file."""
    kinds = {"model": space.models, "optimizer": space.optimizers}
    return {kind: [branch.name for branch in branches] for kind, branches in kinds.items()}


def _taken(space: Space, chosen: Mapping[str, str | None]) -> Iterator[str]:
    """Yield what was taken where the experiment leaves a choice that nobody has made."""
    for kind, (first, *others) in _alternatives(space).items():
        if others and chosen[kind] is None:
            count = f"the first of {len(others) + 1} {kind}s in the experiment"
            yield f"{kind} {first}, {count}; --{kind} takes another: {', '.join(others)}"


def _epochs(plan: Mapping[str, Any], seed: int, data: DeviceData, registry: Registry) -> Iterator[Epoch]:
    """Train, yielding each epoch's number and metrics. What whoever takes them raises is no failure of the training.

    Raises:
        NothingLearntError: if the loss becomes NaN or infinite.
        PluginError: if a plugin fails; its cause is what the plugin raised.
        MachineError: if the training fails for another reason, as a lack of memory.
    """
    from mnistlab.training import loop
    from mnistlab.util.seeds import trial_seed

    with _failures_named():
        begun = loop.begin(plan, trial_seed(seed, 0), data, registry)
    while begun.epoch < begun.epochs:
        with _failures_named():
            metrics = loop.run_epoch(begun)
        yield begun.epoch, metrics


@contextmanager
def _failures_named() -> Generator[None]:
    from mnistlab.training.causes import DivergedError, cause_of

    try:
        yield
    except DivergedError as error:
        raise NothingLearntError(f"the training failed: {error}") from None
    except MnistlabError:
        raise
    except (Exception, SystemExit) as error:
        cause = cause_of(error)
        kind = PluginError if cause == "plugin" else MachineError
        raise kind(f"the training failed ({cause}): {error!r}") from error


def _show(epochs: Iterator[Epoch], count: int) -> None:
    """Print a line an epoch on standard output, below them a bar where standard error is a terminal."""
    with _progress() as bar:
        task = bar.add_task("training", total=count)
        for epoch, metrics in epochs:
            bar.advance(task)
            line = (
                f"epoch {epoch}/{count}  train_loss {metrics['train_loss']:.4f}  "
                f"val_loss {metrics['val_loss']:.4f}  val_accuracy {metrics['val_accuracy']:.4%}  "
                f"{metrics['images_per_second']:,.0f} images/s  {metrics['seconds']:.1f} s"
            )
            if not bar.disable and sys.stdout.isatty():  # one terminal for both: the line goes above the bar
                bar.console.print(line, markup=False, highlight=False)
            else:
                typer.echo(line)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Lines for a pipe must reach the pipe: only those that share the bar's terminal are printed above it.
    return Progress(*columns, console=console, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty())
