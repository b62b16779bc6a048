"""`mnistlab export RUN [TRIAL] -o FILE`: a model that leaves the lab, checked on its way."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnistlab.cli.options import RUNS, DataDir, NoPlugins, Plugins, Runs
from mnistlab.cli.output import write_output
from mnistlab.cli.reproduce import Replicate, Run, Trial
from mnistlab.errors import ExitCode, MnistlabError, nearest
from mnistlab.trained.formats import KINDS, READ

if TYPE_CHECKING:
    from mnistlab.plugins.registry import Registry
    from mnistlab.trained.export import Leaving
    from mnistlab.trained.portable import Agreement


class ChoiceError(MnistlabError):
    """Options that exclude each other."""

    exit_code = ExitCode.USAGE


class OutputError(MnistlabError):
    """A place where nothing can be written, or a kind of file that is not known."""

    exit_code = ExitCode.USAGE


def export(
    run: Run,
    trial: Trial = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help=f"The file to write; its ending says the kind: {', '.join(KINDS)}."),
    ] = Path("model.safetensors"),
    replicate: Replicate = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="All of the trial's seeds together: the mean of their probabilities.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    no_plugins: NoPlugins = False,
    runs: Runs = RUNS,
) -> None:
    """Write a confirmed model of RUN into one file that others can use, with a model card beside it.

    Without TRIAL it is the champion. Of its replicates it is the first: nothing is selected by the test set, which
    stays sealed. With --ensemble it is all of them, in one file that takes as many times the memory and the time.
    """
    _check_output(output, force=force)
    if ensemble and replicate is not None:
        raise ChoiceError("--ensemble takes all replicates, and --replicate one: leave one of them out")
    from mnistlab import store
    from mnistlab.data import default_place
    from mnistlab.plugins.discovery import selection
    from mnistlab.plugins.registry import select
    from mnistlab.trained import card
    from mnistlab.trained import export as leave
    from mnistlab.trained import selection as chosen
    from mnistlab.tuning.environment import check_environment

    check_environment()
    record = store.read_run(store.find_run(run, runs))
    one = chosen.ensemble_of(record, trial) if ensemble else chosen.model_of(record, trial, replicate)
    registry = select(selection(plugin or (), only_built_in=no_plugins))
    leaving = leave.from_run(one, default_place(data_dir), registry)
    typer.echo(f"{one.title}: {leaving.about.label}", err=True)
    data, found = _written(leaving, output, registry)
    text = card.card(output, hashlib.sha256(data).hexdigest(), leaving.about, one, found, named=trial is not None)
    write_output(output, data)
    write_output(card_of(output), text.encode())
    typer.echo(_summary(output, len(data), found, unseen=one.validated))


def card_of(output: Path) -> Path:
    """Return where the model card of a file lies."""
    return output.with_name(f"{output.name}.md")


def _check_output(output: Path, *, force: bool) -> None:
    if output.suffix not in KINDS:
        rule = f"the name must end with {', '.join(KINDS)}, which says what is written"
        raise OutputError("; ".join(filter(None, [f"--output {output}: {rule}", nearest(output.suffix, KINDS)])))
    if not output.parent.is_dir():
        raise OutputError(f"--output {output}: there is no folder {output.parent}")
    there = [str(path) for path in (output, card_of(output)) if path.exists()]
    if there and not force:
        raise OutputError(f"{' and '.join(there)} is there already; --force writes over it")


def _written(leaving: Leaving, output: Path, registry: Registry) -> tuple[bytes, Agreement]:
    """Return the file's content, once what it says after it was read back is what the model said before."""
    from mnistlab.trained import export as leave
    from mnistlab.trained import formats, portable

    data, back = formats.written(leaving.module, leaving.about, output.name, lambda: registry)
    found = portable.agreement(leaving.logits, back.ask(leaving.pixels), leaving.labels)
    leave.refuse_other(found)
    return data, found


def _summary(output: Path, size: int, found: Agreement, *, unseen: bool) -> str:
    same = "the same" if found.correct == found.correct_before else f"{found.correct_before:,} before it was written"
    ask = f"mnistlab predict {shlex.quote(str(output))} picture.png"
    seen = "" if unseen else " (its models have drawn their own splits, and have trained on most of these)"
    return (
        f"Written: {output} ({size:,} bytes) and {card_of(output)}\n"
        f"Read back, it classifies {found.correct:,} of {found.images:,} validation images correctly ({same}){seen}; "
        f"probabilities differ by at most {found.probabilities_apart:.1e}, logits by {found.logits_apart:.1e}\n"
        f"Next: {ask if output.suffix in READ else 'load it as its model card says'}"
    )
