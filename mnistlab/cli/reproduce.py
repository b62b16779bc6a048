"""`mnistlab reproduce RUN [TRIAL]`: the same plan with the same seed once more, in this process."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from mnistlab.cli.options import RUNS, DataDir, NoPlugins, Plugins, Runs
from mnistlab.errors import MnistlabError, PluginError

if TYPE_CHECKING:
    import torch

    from mnistlab.store.results import RunRecord
    from mnistlab.trained.reproduce import Again, Epoch

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or its name in --runs.", show_default=False)]
Trial = Annotated[
    str | None,
    typer.Argument(metavar="TRIAL", help="A trial; the champion if none is given.", show_default=False),
]
Replicate = Annotated[
    int | None, typer.Option("--replicate", min=1, help="This replicate of the trial.", show_default=False)
]
DISAGREES = 1


def reproduce(
    run: Run,
    trial: Trial = None,
    replicate: Replicate = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="CPU threads; as many as the run's trials had if not given."),
    ] = None,
    other_versions: Annotated[
        bool, typer.Option("--other-versions", help="Go on with plugins of other versions than the run's.")
    ] = False,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    no_plugins: NoPlugins = False,
    runs: Runs = RUNS,
) -> None:
    """Train a plan of RUN with the same seed again and say whether the numbers agree; exit with 1 if they don't.

    Without TRIAL it is the champion's first replicate, with TRIAL that trial itself. The test set stays sealed.
    """
    from mnistlab import store
    from mnistlab.data import default_place
    from mnistlab.experiment import versions
    from mnistlab.experiment.recorded import open_data
    from mnistlab.plugins.discovery import selection
    from mnistlab.plugins.registry import select
    from mnistlab.trained import reproduce as again
    from mnistlab.trained import selection as chosen
    from mnistlab.training import loop
    from mnistlab.tuning.environment import check_environment

    check_environment()
    record = store.read_run(store.find_run(run, runs))
    one = chosen.training_of(record, trial, replicate)
    registry = select(selection(plugin or (), only_built_in=no_plugins))
    plan = one.plan
    if differing := versions.other_versions(record, plan, registry):
        if not other_versions:
            raise PluginError("\n".join([*differing, "--other-versions goes on all the same"]))
        plan = versions.with_versions_here(plan, registry)
    data = open_data(record, default_place(data_dir), registry, one.replicate)
    count = threads or again.threads_of(record)
    device = again.device_for(record, count, loop.set_up_process)
    ready = again.again(one, plan, data, registry, device)
    _announce(ready, device, count)
    _show(ready)
    for line in again.verdict(ready):
        typer.echo(line)
    _tell_differences(record, ready, device, count, differing)
    raise typer.Exit(0 if ready.agrees else DISAGREES)


def _announce(ready: Again, device: torch.device, threads: int) -> None:
    from mnistlab.util.text import counted, plan_label

    what, where = plan_label(ready.plan), f"{device.type}, {counted(threads, 'thread')}"
    typer.echo(f"{ready.chosen.title}, seed {ready.chosen.result.seed}: {what}; {where}", err=True)


def _show(ready: Again) -> None:
    """Train, printing a line an epoch."""
    total = len(ready.chosen.result.history)
    with _faults_of_plugins():
        for epoch in ready.epochs():
            typer.echo(_line(epoch, total))


@contextmanager
def _faults_of_plugins() -> Generator[None]:
    """Name what a plugin raises as its failure, with the traceback that its author needs."""
    try:
        yield
    except (MnistlabError, typer.Exit):
        raise
    except (Exception, SystemExit) as error:
        traceback.print_exception(error)
        raise PluginError(f"the training failed: {error!r}") from error


def _line(epoch: Epoch, total: int) -> str:
    from mnistlab.util.text import metric_text

    shown = [f"{name} {metric_text(name, epoch.metrics[name])}" for name in ("train_loss", "val_loss", "val_accuracy")]
    said = "the same" if not epoch.apart else f"differs: {', '.join(one.metric for one in epoch.apart)}"
    return "  ".join([f"epoch {epoch.number}/{total}", *shown, said])


def _tell_differences(record: RunRecord, ready: Again, device: torch.device, threads: int, plugins: list[str]) -> None:
    """Say what is another here than it was in the run, which is where numbers may differ."""
    from mnistlab.trained import reproduce as again

    found = [*plugins, *again.differences(record, again.machine_here(device, threads))]
    if found:
        typer.echo(f"Other here than in the run{', without effect' if ready.agrees else ''}:")
        for line in found:
            typer.echo(f"  {line}")
    elif not ready.agrees:
        typer.echo(
            "Nothing that the run wrote down of its machine is other here; its processor may be of another model."
        )
