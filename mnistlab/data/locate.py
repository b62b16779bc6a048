"""Where data lies: the user's folder first, then the cache, then (unless offline) the network into the cache."""

# ruff: noqa: PLC0415 (platformdirs is needed only by the process that the user starts)

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mnistlab.api import DataPlace, LabelledImages, Split
from mnistlab.data.fetch import Archive, fetch
from mnistlab.data.files import Digests, FourFiles, find_part, read_all, read_split
from mnistlab.errors import DataError, DataUnavailableError


@dataclass(frozen=True, kw_only=True)
class Found:
    """All four files of a dataset, read and checked. `paths` maps the parts' names to their files."""

    paths: Mapping[str, Path]
    source: str
    train: LabelledImages
    test: LabelledImages
    sha256: Digests


def default_place(data_dir: Path | None = None) -> DataPlace:
    """Return the place to look in, after the argument and the environment.

    `MNISTLAB_DATA` names the user's folder where no argument does; `MNISTLAB_CACHE` names the cache, which is
    otherwise the platform's cache folder; `MNISTLAB_OFFLINE=1` forbids the network. Paths are absolute: workers
    have another working directory than the one in which they were typed.
    """
    from platformdirs import user_cache_path

    named = os.environ.get("MNISTLAB_DATA", "")
    cache = os.environ.get("MNISTLAB_CACHE", "")
    chosen = data_dir if data_dir is not None else Path(named) if named else None
    return DataPlace(
        data_dir=None if chosen is None else chosen.expanduser().absolute(),
        cache=Path(cache).expanduser().absolute() if cache else user_cache_path("mnistlab"),
        offline=is_offline(),
    )


def is_offline() -> bool:
    """Return whether the environment forbids the network: `MNISTLAB_OFFLINE` set to anything but 0, no or false."""
    return os.environ.get("MNISTLAB_OFFLINE", "").strip().lower() not in {"", "0", "no", "false"}


def find_or_fetch(files: FourFiles, place: DataPlace) -> Found:
    """Find the four files or fetch them into the cache, and check all of them.

    A damaged copy in the cache is fetched again; one in the user's folder is the user's to mend.

    Raises:
        DataError: if the user's folder does not exist, or holds some of the files but not all, or wrong ones.
        DataUnavailableError: if the files are neither there nor to be had.
    """
    paths = _in_data_dir(files, place)
    if paths is not None:
        return _read(files, paths, str(_folder(paths)))
    cached, fault = _from_cache(files, place)
    if cached is not None:
        return cached
    if place.offline or is_offline():
        raise DataUnavailableError(_nowhere(files, place, fault, "the network is not to be used (offline)"))
    return _fetched(files, place, fault)


def load_split(files: FourFiles, place: DataPlace, split: Split) -> tuple[LabelledImages, Path]:
    """Return one split and the folder that it was read from, without ever using the network.

    Raises:
        DataError: as `find_or_fetch`; the files of the other split are not opened.
        DataUnavailableError: if the files are neither in the user's folder nor in the cache.
    """
    paths = _in_data_dir(files, place) or _in_cache(files, place)
    if paths is None:
        raise DataUnavailableError(_nowhere(files, place, "", "loading never uses the network"))
    return read_split(files, paths, split), _folder(paths)


def whole_folder(files: FourFiles, folder: Path) -> Mapping[str, Path] | None:
    """Return the four files of `folder`, or None if it holds none of them.

    Raises:
        DataError: if it holds some, naming those that are missing.
    """
    found = {part.name: find_part(part, folder) for part in files.parts}
    missing = [name for name, path in found.items() if path is None]
    if len(missing) == len(found):
        return None
    if missing:
        names = ", ".join(f"{name}.gz" for name in missing)
        raise DataError(f"dataset '{files.dataset}' in {folder}: four files were expected, but missing: {names}")
    return {name: path for name, path in found.items() if path is not None}


def _folders(files: FourFiles, data_dir: Path) -> Iterator[Path]:
    """Yield where the dataset may lie in the user's folder: the most telling name first, the folder itself last."""
    yield data_dir / files.dataset
    if files.torchvision:
        yield data_dir / files.torchvision / "raw"
    yield data_dir


def _in_data_dir(files: FourFiles, place: DataPlace) -> Mapping[str, Path] | None:
    if place.data_dir is None:
        return None
    if not place.data_dir.is_dir():
        hint = "check --data-dir or MNISTLAB_DATA"
        raise DataError(f"{place.data_dir}: a folder with data files was expected, but there is no such folder; {hint}")
    for folder in _folders(files, place.data_dir):
        paths = whole_folder(files, folder)
        if paths is not None:
            return paths
    return None


def _in_cache(files: FourFiles, place: DataPlace) -> Mapping[str, Path] | None:
    try:
        return whole_folder(files, place.cache / files.dataset)
    except DataError:  # a download that has not ended: not the user's doing
        return None


def _from_cache(files: FourFiles, place: DataPlace) -> tuple[Found | None, str]:
    """Return the cached copy, or why there is none that can be used."""
    paths = _in_cache(files, place)
    if paths is None:
        return None, ""
    try:
        return _read(files, paths, str(_folder(paths))), ""
    except DataError as error:
        return None, f"the cached copy is damaged: {error}"


def _fetched(files: FourFiles, place: DataPlace, fault: str) -> Found:
    folder = place.cache / files.dataset
    archives = [Archive(name=f"{part.name}.gz", known_hash=part.archive) for part in files.parts]
    try:
        fetch(archives, files.mirrors, folder)
    except DataUnavailableError as error:
        raise DataUnavailableError(_nowhere(files, place, fault, str(error))) from error
    paths = {part.name: folder / f"{part.name}.gz" for part in files.parts}
    return _read(files, paths, f"{folder} (fetched)")


def _read(files: FourFiles, paths: Mapping[str, Path], source: str) -> Found:
    train, test, sha256 = read_all(files, paths)
    return Found(paths=paths, source=source, train=train, test=test, sha256=sha256)


def _folder(paths: Mapping[str, Path]) -> Path:
    return next(iter(paths.values())).parent


def _nowhere(files: FourFiles, place: DataPlace, fault: str, reason: str) -> str:
    """Say where the dataset was looked for, why it can't be fetched, and what to do."""
    looked = [] if place.data_dir is None else [str(folder) for folder in _folders(files, place.data_dir)]
    lines = [f"dataset '{files.dataset}' is neither to be found nor to be fetched", f"  {fault}" if fault else ""]
    lines += [f"  looked in: {', '.join([*looked, str(place.cache / files.dataset)])}"]
    lines += [*(f"  {line}" for line in reason.splitlines())]
    lines += [f"  put {', '.join(f'{part.name}.gz' for part in files.parts)} into a folder and name it by --data-dir"]
    return "\n".join(line for line in lines if line)
