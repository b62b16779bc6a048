"""Check on a real GPU what the tests can only emulate, and measure a search, a confirmation and packed trials on it.

Usage: python benchmarks/gpu.py [--data-dir FOLDER] [--dry] [--minutes 10] [--rounds 3] [--out FOLDER]

It needs no network: MNIST's files in --data-dir, else the digits of scikit-learn. It prints a table and writes the same
as gpu.json and gpu.md into --out. What there is no time for is left out, and named. The exit code is 0 if every check
holds, 1 if one does not, 2 without a GPU. `--dry` goes the same way on a CPU, with tiny sizes: its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from machine import describe, spread, table
from plans import part
from ray.exceptions import WorkerCrashedError
from torch import nn
from torch.profiler import ProfilerActivity, profile

from mnistlab.api import ImageShape
from mnistlab.data.device import DeviceData, mean_and_std
from mnistlab.experiment.space import TrainingConfig
from mnistlab.plugins.registry import installed
from mnistlab.store import read_events, read_run
from mnistlab.training import loop
from mnistlab.training.precision import reproducible
from mnistlab.tuning.ray.cluster import cluster
from mnistlab.tuning.resources import Machine

ROOT = Path(__file__).resolve().parents[1]
NO_GPU, FAILED = 2, 1
SHAPE = ImageShape(1, 28, 28, 10)
EXPERIMENT = """
name = "gpu"
[data]
dataset = "{dataset}"
validation = {validation}
[model.{model}]
[optimizer.adamw]
lr = {{ low = 1e-3, high = 1e-2, log = true }}
[transform.shift]
[training]
epochs = {epochs}
batch_size = {batch_size}
[search]
trials = {trials}
scheduler = "{scheduler}"
algorithm = "random"
[resources]
gpus_per_trial = {gpus}
max_parallel = {parallel}
[confirm]
top = {top}
seeds = {seeds}
"""


@dataclass(frozen=True)
class Found:
    """A line of the table; `holds` is None for what is measured and for what could not be checked here."""

    figure: str
    wanted: str
    found: str
    holds: bool | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Bench:
    """Where and how large."""

    device: torch.device
    data_dir: Path | None
    rounds: int
    ends: float
    sizes: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def real(self) -> bool:
        """Return whether there is a GPU."""
        return self.device.type == "cuda"


# --- checks in this process -------------------------------------------------------------------------------------------


def images(device: torch.device, count: int) -> DeviceData:
    """Return random images on `device`; a step takes as long whatever they show."""
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8, generator=drawn).to(device)
    labels = torch.randint(10, (count,), generator=drawn).to(device)
    mean, std = mean_and_std(pixels)
    parts = {"train_images": pixels, "train_labels": labels}
    parts |= {"validation_images": pixels[:64], "validation_labels": labels[:64]}
    return DeviceData(shape=SHAPE, mean=mean, std=std, **parts)


def begun(bench: Bench, model: str, optimizer: str = "adamw", *, transforms: bool = False, steps: int = 6) -> Any:
    """Begin a training of so many steps an epoch."""
    size, offers = bench.sizes["batch"], [o for p in installed().plugins for o in p.offers]
    names = [o.name for o in offers if o.kind == "transform" and o.distribution == "mnistlab"] if transforms else []
    settings = {**TrainingConfig().model_dump(), "epochs": 3, "batch_size": size, "precision": "fp32"}
    plan = {
        "model": part("model", model),
        "optimizer": part("optimizer", optimizer),
        "transforms": [part("transform", name) for name in names],
        "training": settings,
    }
    return loop.begin(plan, 0, images(bench.device, steps * size), installed())


def check_fills(bench: Bench) -> Iterator[Found]:
    """Count how often a step fills a tensor, with the settings of a training and with torch's own."""
    one = begun(bench, "cnn", steps=1)
    loop.run_epoch(one)
    counts = []
    for settings in (reproducible, reproducible, _nothing):
        with profile(activities=[ProfilerActivity.CPU]) as seen, settings(bench.device):
            loop._train_epoch(one)
        counts.append(sum(event.count for event in seen.key_averages() if event.key == "aten::fill_"))
    _, ours, plain = counts  # the first one warms up
    yield Found("fills in a step of cnn, deterministic", f"{plain}, as without", str(ours), ours <= plain)


@contextmanager
def _nothing(_device: torch.device) -> Iterator[None]:
    yield


def check_waits(bench: Bench) -> Iterator[Found]:
    """Take steps of every built-in model, with every transform, and of every optimizer: none may wait for the GPU."""
    offers = [o for p in installed().plugins for o in p.offers if o.distribution == "mnistlab"]
    pairs = [(o.name, "adamw") for o in offers if o.kind == "model"]
    pairs += [("cnn", o.name) for o in offers if o.kind == "optimizer"]
    waiting: list[str] = []
    for model, optimizer in pairs:
        one = begun(bench, model, optimizer, transforms=True)
        loop.run_epoch(one)
        one.on_step = _refuse_waits(bench, len(one.data.train_images) // bench.sizes["batch"])
        try:
            loop._train_epoch(one)
        except RuntimeError as error:
            waiting.append(f"{model} with {optimizer}: {str(error).splitlines()[0]}")
        finally:
            _let_wait(bench, "default")
    shown = "; ".join(waiting) or ("none" if bench.real else "none (a CPU can't tell)")
    yield Found(f"steps that wait, of {len(pairs)} models and optimizers", "none", shown, not waiting)


def _refuse_waits(bench: Bench, steps: int) -> Callable[[], None]:
    """Return what is called after each step: between the first and the last one, to wait is an error."""
    taken = [0]

    def after_step() -> None:
        taken[0] += 1
        _let_wait(bench, "error" if 1 <= taken[0] < steps - 1 else "default")

    return after_step


def _let_wait(bench: Bench, mode: str) -> None:
    if bench.real:
        torch.cuda.set_sync_debug_mode(mode)


def check_float32(bench: Bench) -> Iterator[Found]:
    """Compare convolution, matrix product and recurrence with float64; TF32 is wrong by about 1e-3."""
    torch.manual_seed(0)
    cases: dict[str, tuple[nn.Module, torch.Tensor]] = {
        "convolution": (nn.Conv2d(64, 64, 3), torch.randn(64, 64, 14, 14)),
        "matrix product": (nn.Linear(1024, 1024), torch.randn(256, 1024)),
        "recurrence": (_Recurrence(), torch.randn(64, 16, 256)),
    }
    for name, (module, given) in cases.items():
        layer, values = module.to(bench.device), given.to(bench.device)
        with torch.no_grad():
            plain = layer(values)
            with reproducible(bench.device):
                ours = layer(values)
            exact = layer.double()(values.double())
        wrong = [float((one - exact).abs().max() / exact.abs().max()) for one in (ours, plain)]
        yield Found(
            f"float32 {name}, largest error (torch's own settings: {wrong[1]:.1e})",
            "< 1e-5",
            f"{wrong[0]:.1e}",
            wrong[0] < 1e-5,
        )


class _Recurrence(nn.Module):
    """A GRU of which the outputs are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(256, 256, batch_first=True)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the outputs (N, T, 256)."""
        return self.gru(values)[0]


def check_repeats(bench: Bench) -> Iterator[Found]:
    """Train twice with the same seed."""
    twice = []
    for _ in range(2):
        one = begun(bench, "cnn", transforms=True)
        loop.run_epoch(one)
        twice.append(torch.cat([p.detach().flatten().cpu() for p in one.module.parameters()]))
    same = torch.equal(*twice)
    yield Found(
        "weights after the same epoch twice (cnn, all transforms)", "equal", "equal" if same else "differ", same
    )


# --- checks in processes of their own ---------------------------------------------------------------------------------

WARNING = """
import sys, torch
from pathlib import Path
from mnistlab.training.precision import deterministic
from mnistlab.tuning.worker.output import Capture, hear_nondeterminism
capture = Capture(Path(sys.argv[1])); capture.start(); hear_nondeterminism(); torch.set_default_device(sys.argv[2])
with deterministic():
    for _ in range(3):
        torch.zeros(4).put_(torch.tensor([0]), torch.ones(1))
log = capture.take()
Path(sys.argv[1] + ".said").write_text(str(log.count("put_ does not have a deterministic implementation")))
"""
MEMORY = """
import torch
from mnistlab.tuning.worker import gpu
from mnistlab.tuning.worker.trial import give_back_memory
block = torch.empty(1 << 30, dtype=torch.uint8, device="cuda"); del block
kept = torch.cuda.memory_reserved(); give_back_memory(); left = torch.cuda.memory_reserved()
total = torch.cuda.get_device_properties(0).total_memory; gpu.limit_memory(0.25)
try:
    torch.empty(int(0.3 * total), dtype=torch.uint8, device="cuda"); limited = False
except torch.OutOfMemoryError:
    limited = True
print(kept, left, int(limited))
"""


def _python(code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout


def check_warnings(bench: Bench) -> Iterator[Found]:
    """Warn three times of an operation without a deterministic form, in a process set up like a worker."""
    with tempfile.TemporaryDirectory() as folder:
        _python(WARNING, f"{folder}/log", bench.device.type)
        said = int(Path(f"{folder}/log.said").read_text())
    yield Found("warnings of a nondeterministic operation in a trial's log", "1", str(said), said == 1)


def check_memory(bench: Bench) -> Iterator[Found]:
    """Free a block of 1 GiB, and ask for more than a quarter of the memory with a quarter of the GPU."""
    if not bench.real:
        yield Found("cached memory after a trial, MiB", "0", "not on a CPU")
        return
    kept, left, limited = map(int, _python(MEMORY).split())
    yield Found(f"cached memory after a trial, MiB (before: {kept >> 20})", "0", str(left >> 20), left == 0 < kept)
    yield Found("more than a share of the memory is refused", "yes", "yes" if limited else "no", bool(limited))


def check_identity(bench: Bench) -> Iterator[Found]:
    """Give tasks of half a GPU to processes that Ray uses again: each must keep to the GPU it began with."""
    count = torch.cuda.device_count() if bench.real else 2
    with cluster(None, Machine(cpus=4, gpus=float(count))):
        told, ended = _told_by_tasks()
    processes = {process: {ids for p, ids, _ in told if p == process} for process, _, _ in told}
    devices = {ids: {device for _, i, device in told if i == ids} for _, ids, _ in told}
    one_each = all(len(found) == 1 for found in (*processes.values(), *devices.values()))
    shown = f"{len(told)} tasks in {len(processes)} processes on {len(devices)} GPUs, {ended} ended for another GPU"
    yield Found("each process uses one GPU, the one that its tasks are given", "yes", shown, one_each)


def _told_by_tasks() -> tuple[list[tuple[int, tuple[str, ...], str]], int]:
    """Return what tasks tell of their process and device, and how many had to end their process first."""
    asked: Any = ray.remote(_who)
    told, ended = [], 0
    for number in range(12):
        for reference in [asked.options(num_gpus=0.5, max_retries=0).remote() for _ in range(1 + number % 3)]:
            try:
                told.append(ray.get(reference, timeout=60))
            except WorkerCrashedError:
                ended += 1
    return told, ended


def _who() -> tuple[int, tuple[str, ...], str]:
    from mnistlab.tuning.worker import gpu

    mine = gpu.given()
    gpu.keep_to(mine)
    device = (
        str(torch.cuda.get_device_properties(0).uuid)
        if torch.cuda.is_available()
        else os.environ["CUDA_VISIBLE_DEVICES"]
    )
    time.sleep(0.2)
    return os.getpid(), mine.ids, device


# --- measurements -----------------------------------------------------------------------------------------------------


def search(bench: Bench, folder: Path, **settings: Any) -> tuple[Path, float]:
    """Run `mnistlab search`; return the run directory and the seconds that the command took."""
    mnist = bench.data_dir is not None
    data = {
        "dataset": "mnist" if mnist else "digits",
        "validation": 10_000 if mnist else 300,
        **bench.sizes["search"],
    }
    experiment = folder / "gpu.toml"
    experiment.write_text(EXPERIMENT.format(**{**data, **bench.sizes["search"], **settings}))
    where = ["--data-dir", str(bench.data_dir)] if mnist else []
    command = [
        sys.executable,
        "-m",
        "mnistlab",
        "search",
        str(experiment),
        "--runs",
        str(folder / "runs"),
        "--ui",
        "quiet",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    before, start = set((folder / "runs").glob("*")), time.perf_counter()
    subprocess.run([*command, *where], check=True, env=environment, stdout=subprocess.DEVNULL, timeout=600)
    (path,) = set((folder / "runs").glob("*")) - before
    return path, time.perf_counter() - start


def measure_search(bench: Bench) -> Iterator[Found]:
    """Search and confirm once, as the defaults do it."""
    with tempfile.TemporaryDirectory() as name:
        path, seconds = search(bench, Path(name), **bench.sizes["whole"])
        record, events = read_run(path), list(read_events(path))
    began = next((e.t for e in events if e.event.type == "confirmation_started"), events[-1].t)
    failed = [t.cause for t in record.trials if t.cause] + [r.cause for r in record.replicates if r.cause]
    wait = next(e.t for e in events if e.event.type == "trial_epoch")
    yield Found("failed trials and replicates", "none", ", ".join(failed) or "none", not failed)
    yield Found("search and confirmation, the whole command, s", "", f"{seconds:.1f}", None, (seconds,))
    yield Found(
        f"  until the first epoch ended, s; then {len(record.trials)} trials, s", "", f"{wait:.1f}; {began - wait:.1f}"
    )
    done = [sum(epoch["seconds"] for epoch in r.history) for r in record.replicates if not r.cause]
    if done:
        yield Found(f"  confirmation of {len(done)} replicates, s", "", f"{events[-1].t - began:.1f}")
        yield Found("  training of one replicate, s", "", spread(done, 1), None, tuple(done))


def measure_packing(bench: Bench) -> Iterator[Found]:
    """Run 1, 2, 4 and 8 trials on a GPU at a time; the images that all of them train in a second."""
    for parallel in bench.sizes["packing"]:
        rates: list[float] = []
        for _ in range(bench.rounds):
            if time.monotonic() > bench.ends:
                break
            with tempfile.TemporaryDirectory() as name:
                share = {"gpus": 1 / parallel if bench.real else 0, "parallel": parallel}
                path, _ = search(bench, Path(name), trials=2 * parallel, **share)
                rates.append(images_per_second(path))
        found = spread(rates, 0) if rates else "left out, for lack of time"
        yield Found(f"images/s of {parallel} trials on a GPU together", "", found, None, tuple(rates))


def images_per_second(path: Path) -> float:
    """Return how many images all trials of a run trained in a second, from the first epoch's start to the end."""
    record = read_run(path)
    epochs = [e for e in read_events(path) if e.event.type == "trial_epoch"]
    first = min(e.t - e.event.metrics["seconds"] for e in epochs)  # type: ignore[attr-defined]
    return len(epochs) * record.run["dataset"]["train"] / (epochs[-1].t - first)


# --- all of it --------------------------------------------------------------------------------------------------------

STEPS: tuple[Callable[[Bench], Iterator[Found]], ...] = (
    check_fills,
    check_waits,
    check_float32,
    check_repeats,
    check_warnings,
    check_memory,
    check_identity,
    measure_search,
    measure_packing,
)
TINY = {
    "batch": 8,
    "search": {"model": "mlp", "epochs": 1, "batch_size": 256, "scheduler": "none", "trials": 2, "top": 0, "seeds": 3},
    "whole": {"gpus": 0, "parallel": 2, "top": 1, "seeds": 2},
    "packing": (2,),
}
REAL = {
    "batch": 128,
    "search": {"model": "cnn", "epochs": 3, "batch_size": 256, "scheduler": "none", "trials": 8, "top": 0, "seeds": 3},
    "whole": {"gpus": '"auto"', "parallel": 8, "trials": 16, "epochs": 6, "scheduler": "asha", "top": 3, "seeds": 5},
    "packing": (1, 2, 4, 8),
}


def everything(bench: Bench) -> Iterator[Found]:
    """Do all steps; one that breaks is a check that does not hold."""
    for step in STEPS:
        if time.monotonic() > bench.ends:
            yield Found((step.__doc__ or "").splitlines()[0], "", "left out, for lack of time")
            continue
        try:
            yield from step(bench)
        except Exception as error:
            yield Found((step.__doc__ or "").splitlines()[0], "", f"{type(error).__name__}: {error}"[:300], holds=False)


def written(found: list[Found], device: str, out: Path | None) -> str:
    """Return the table; write it and the same as JSON into the folder `out`."""
    rows = [(one.figure, one.wanted, one.found, {None: "", True: "yes", False: "NO"}[one.holds]) for one in found]
    text = table(f"GPU: {device}", ("figure", "wanted", "found (median, range, n)", "holds"), rows)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu.md").write_text(text, encoding="utf-8")
        body = {"device": device, "machine": describe(), "figures": [asdict(one) for one in found]}
        (out / "gpu.json").write_text(json.dumps(body, indent=1), encoding="utf-8")
    return text


def main(given: list[str] | None = None) -> int:
    """Check, measure, print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(given)
    if not asked.dry and not torch.cuda.is_available():
        print("No GPU: torch sees none on this machine, so nothing was checked. --dry tries the script on the CPU.")
        return NO_GPU
    device = loop.set_up_process(1 if asked.dry else len(os.sched_getaffinity(0)), gpu=not asked.dry)
    name = "none, a dry run on the CPU" if asked.dry else torch.cuda.get_device_name(device)
    ends = time.monotonic() + 60 * asked.minutes - (0 if asked.dry else 60)  # the last step may take a minute
    found = list(everything(Bench(device, asked.data_dir, asked.rounds, ends, TINY if asked.dry else REAL)))
    print(written(found, name, asked.out))
    broken = [one.figure for one in found if one.holds is False]
    print(f"{len(broken)} checks do not hold: {'; '.join(broken)}" if broken else "Every check holds.")
    return FAILED if broken else 0


if __name__ == "__main__":
    sys.exit(main())
