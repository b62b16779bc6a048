"""Checkpoints: which are kept, and which one a trial goes on from, whatever has become of the files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mnistlab.store import RunWriter, durable
from mnistlab.store.checkpoints import discard_checkpoints, newest_checkpoint, write_checkpoint
from mnistlab.store.fsck import check

VALUES = {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.8, 5: 0.6}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunWriter]:
    writer = RunWriter(tmp_path)
    yield writer
    writer.close()


def state(epoch: int) -> bytes:
    return f"state {epoch} ".encode() * 50


def keep(store: RunWriter, metric: str = "val_accuracy", trial: str = "0000") -> Path:
    for epoch, value in VALUES.items():
        write_checkpoint(store, trial, epoch, metric, value, state(epoch))
    return store.path / "trials" / trial / "checkpoints"


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("metric", "best"), [("val_accuracy", 2), ("val_loss", 1)])
def test_the_last_two_and_the_best_are_kept(store: RunWriter, metric: str, best: int) -> None:
    names = [f"epoch-{epoch:05}.{kind}" for epoch in (best, 4, 5) for kind in ("json", "safetensors")]
    assert kept(keep(store, metric)) == names


def test_a_value_that_is_not_known_is_never_the_best(store: RunWriter) -> None:
    write_checkpoint(store, "0000", 1, "val_accuracy", None, b"1")
    write_checkpoint(store, "0000", 2, "val_accuracy", 0.1, b"2")
    write_checkpoint(store, "0000", 3, "val_accuracy", 0.0, b"3")
    write_checkpoint(store, "0000", 4, "val_accuracy", 0.0, b"4")
    assert kept(store.path / "trials/0000/checkpoints")[0] == "epoch-00002.json"


def test_the_newest_that_is_not_too_new_is_gone_on_from(store: RunWriter) -> None:
    keep(store)
    assert newest_checkpoint(store.path, "0000", 9) == (5, state(5))
    assert newest_checkpoint(store.path, "0000", 4) == (4, state(4))
    assert newest_checkpoint(store.path, "0000", 3) == (2, state(2))
    assert newest_checkpoint(store.path, "0000", 1) is None
    assert newest_checkpoint(store.path, "0001", 9) is None


def test_every_flipped_bit_and_every_cut_is_seen(store: RunWriter) -> None:
    folder = keep(store)
    for name in ("epoch-00005.safetensors", "epoch-00005.json"):
        path, whole = folder / name, (folder / name).read_bytes()
        for place in range(len(whole.rstrip())):
            path.write_bytes(whole[:place])
            assert newest_checkpoint(store.path, "0000", 9) == (4, state(4))
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert newest_checkpoint(store.path, "0000", 9) == (4, state(4))
        path.write_bytes(whole)


def test_a_manifest_of_another_version_or_without_its_state_is_no_checkpoint(store: RunWriter) -> None:
    folder = keep(store)
    manifest = json.loads((folder / "epoch-00005.json").read_text())
    (folder / "epoch-00005.json").write_text(json.dumps({**manifest, "schema": "mnistlab.checkpoint/9"}))
    (folder / "epoch-00004.safetensors").unlink()
    assert newest_checkpoint(store.path, "0000", 9) == (2, state(2))


def test_a_trial_that_has_ended_keeps_none(store: RunWriter) -> None:
    folder = keep(store)
    discard_checkpoints(store.path, "0000")
    assert not folder.exists()
    discard_checkpoints(store.path, "0000")  # there are none


def test_a_manifest_from_before_there_were_checksums_is_read(store: RunWriter) -> None:
    path = keep(store) / "epoch-00005.json"
    manifest = json.loads(path.read_text())
    del manifest["crc"]
    path.write_text(json.dumps(manifest))
    assert newest_checkpoint(store.path, "0000", 9) == (5, state(5))


def test_a_trial_that_was_set_back_leaves_nothing_that_is_ahead_of_it(store: RunWriter) -> None:
    folder = keep(store)
    write_checkpoint(store, "0000", 3, "val_accuracy", 0.4, b"set back")
    assert kept(folder)[-1] == "epoch-00003.safetensors"
    assert newest_checkpoint(store.path, "0000", 9) == (3, b"set back")


def test_what_a_killed_driver_left_beside_the_checkpoints_goes_with_them(store: RunWriter) -> None:
    folder = keep(store)
    (folder / "epoch-00009.safetensors").write_bytes(b"without its manifest")
    (folder / "epoch-00009.json.tmp-1").write_bytes(b"{")
    discard_checkpoints(store.path, "0000")
    assert not folder.exists()


class Killed(BaseException):
    """The process dies here: nothing catches it."""


@pytest.mark.parametrize(
    ("work", "newest"),
    [
        (lambda store: write_checkpoint(store, "0000", 3, "val_accuracy", VALUES[3], state(3)), {2, 3}),
        (lambda store: write_checkpoint(store, "0000", 1, "val_accuracy", 0.1, b"set back"), {1, 2}),
        (lambda store: discard_checkpoints(store.path, "0000"), {1, 2, None}),
    ],
    ids=["thinned out", "set back", "discarded"],
)
def test_a_kill_at_any_operation_leaves_no_manifest_that_speaks_of_another_state(
    store: RunWriter,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[RunWriter], None],
    newest: set[int | None],
) -> None:
    for earlier in (1, 2):
        write_checkpoint(store, "0000", earlier, "val_accuracy", VALUES[earlier], state(earlier))
    folder = store.path / "trials/0000/checkpoints"
    before, killed, died = tmp_path_factory.mktemp("before") / "checkpoints", 0, True
    shutil.copytree(folder, before)
    while died:
        passed, died = 0, False
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)

        def die(point: str, at: int = killed) -> None:
            nonlocal passed
            passed += point.startswith("after-")
            if passed > at:
                raise Killed

        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(durable, "reached", die)
            died = True
            work(store)
            died = False
        killed += died
        found = [one for one in check(store.path).findings if one.file.startswith("trials/")]
        assert {(one.level, one.mend) for one in found} <= {("note", "remove")}, killed
        left = newest_checkpoint(store.path, "0000", 9)
        assert (left[0] if left else None) in newest, killed
    assert killed > 3


@pytest.mark.parametrize("link", ["trials", "trials/0000", "trials/0000/checkpoints"])
def test_nothing_is_removed_where_a_link_leads(tmp_path: Path, link: str) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    place = elsewhere / Path("trials/0000/checkpoints").relative_to(link)
    place.mkdir(parents=True)
    (place / "precious").write_text("kept")
    (run / link).parent.mkdir(parents=True)
    (run / link).symlink_to(elsewhere)
    assert (run / "trials/0000/checkpoints/precious").exists()
    discard_checkpoints(run, "0000")
    assert (place / "precious").read_text() == "kept"
