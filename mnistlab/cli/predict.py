"""`mnistlab predict MODEL PICTURE ...`: what a trained model sees on pictures of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnistlab.cli.export import ChoiceError
from mnistlab.cli.options import RUNS, DataDir, NoPlugins, Plugins, Runs
from mnistlab.errors import ExitCode
from mnistlab.trained.formats import KINDS, READ

if TYPE_CHECKING:
    from mnistlab.trained.picture import Prepared
    from mnistlab.trained.portable import Exported

SHOWN = 3  # classes
SHADES = " .:-=+*#%@"


def predict(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help=f"A {' or '.join(READ)} file, or a run.", show_default=False)
    ],
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURE...", help="Pictures of one sign each.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a picture, with all classes.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print what the model was shown.")] = False,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Of a run: all of the champion's seeds together.")
    ] = False,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    no_plugins: NoPlugins = False,
    runs: Runs = RUNS,
) -> None:
    """Say what MODEL sees on each PICTURE, which may be of any size, in colour, dark on light or light on dark.

    Of a run it is the champion's first replicate. A picture that can't be used is said and the others go on; the exit
    code then is 5.
    """
    from mnistlab.trained.picture import PictureError
    from mnistlab.util.text import visible

    found = _model(model, data_dir, plugin or [], no_plugins=no_plugins, runs=runs, ensemble=ensemble)
    trouble = ExitCode.DONE
    for path in pictures:
        try:
            answer, prepared = _answer(found, path)
        except PictureError as error:
            text = str(error) if str(path) in str(error) else f"{path}: {error}"
            typer.echo(f"mnistlab: {visible(text)}", err=True)
            trouble = error.exit_code
            continue
        typer.echo(json.dumps(answer) if as_json else _lines(answer))
        if show and not as_json:
            typer.echo(_drawn(prepared))
    raise typer.Exit(int(trouble))


def _model(
    name: str, data_dir: Path | None, plugin: list[Path], *, no_plugins: bool, runs: Path, ensemble: bool
) -> Exported:
    """Return the model that `name` stands for."""
    path = Path(name)
    if path.suffix not in KINDS or path.is_dir():
        return _of_run(name, runs, data_dir, plugin, no_plugins=no_plugins, ensemble=ensemble)
    if ensemble:
        raise ChoiceError(f"{path}: a file is an ensemble or not; --ensemble is for runs")
    from mnistlab.trained.loading import load_model

    return load_model(path, plugins=plugin, no_plugins=no_plugins)


def _of_run(
    name: str, runs: Path, data_dir: Path | None, plugin: list[Path], *, no_plugins: bool, ensemble: bool
) -> Exported:
    from mnistlab import store
    from mnistlab.data import default_place
    from mnistlab.plugins.discovery import selection
    from mnistlab.plugins.registry import select
    from mnistlab.trained import export
    from mnistlab.trained import selection as chosen
    from mnistlab.trained.portable import Exported, ask_of
    from mnistlab.tuning.environment import check_environment

    check_environment()
    registry = select(selection(plugin, only_built_in=no_plugins))
    record = store.read_run(store.find_run(name, runs))
    one = chosen.ensemble_of(record, None) if ensemble else chosen.model_of(record, None, None)
    leaving = export.from_run(one, default_place(data_dir), registry)
    return Exported(leaving.about, ask_of(leaving.module))


def _answer(model: Exported, path: Path) -> tuple[dict[str, Any], Prepared]:
    """Return what the model says of a picture, the likeliest class first, and what it was shown."""
    import numpy as np

    from mnistlab.trained.picture import prepare, read_picture
    from mnistlab.trained.portable import probabilities

    channels, height, width = model.about.shape
    prepared = prepare(read_picture(path), height, width, model.about.framing)
    shown = np.broadcast_to(prepared.pixels, (1, channels, height, width)).copy()  # torch wants to own it
    (chances,) = probabilities(model.ask(shown))
    order = np.argsort(-chances, kind="stable")
    answer: dict[str, Any] = {
        "picture": str(path),
        "class": model.about.classes[int(order[0])],
        "probabilities": {model.about.classes[int(i)]: round(float(chances[i]), 6) for i in order},
        "steps": list(prepared.steps),
    }
    return answer, prepared


def _lines(answer: Mapping[str, Any]) -> str:
    """Return an answer for people: the class, how likely the first few are, and what was done to the picture."""
    from mnistlab.util.text import visible

    best = list(answer["probabilities"].items())[:SHOWN]
    chances = ", ".join(f"{name} {chance:.1%}" for name, chance in best)
    return visible(f"{answer['picture']}: {answer['class']}  ({chances})") + f"\n  {'; '.join(answer['steps'])}"


def _drawn(prepared: Prepared) -> str:
    """Return the image in characters, a darker one for more light."""
    rows = (prepared.pixels * (len(SHADES) - 1)).round().astype(int)
    return "\n".join("  " + "".join(SHADES[value] * 2 for value in row) for row in rows)
