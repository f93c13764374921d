"""How a verb begins: threads and signals, the run's folder, the workshop that recipes work in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from handful import __version__, machine, parallel
from handful.data.manifest import Manifest, printable
from handful.engine.interrupt import listening
from handful.randomness import key
from handful.recipes.task import Workshop
from handful.report.record import Recorder
from handful.run.file import Options, RunFile, resolved
from handful.run.places import cache_folder
from handful.run.splits import differences
from handful.run.teller import Teller


@contextmanager
def at_work(teller: Teller | None = None, *, distributed: bool = False) -> Iterator[Teller]:
    """What a verb works in: memory and threads set, Ctrl-C heard, and one process that tells how far it is.

    Args:
        distributed: join the processes that ``torchrun`` started.
    """
    machine.tune_allocator()
    machine.set_threads()
    if distributed:
        parallel.start()
    with listening():
        yield teller if teller and parallel.is_first() else Teller()


def device() -> str:
    """Where networks run."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def identity_of(manifest: Manifest, options: Options, *more: Any) -> str:
    """What a run with the same name would have to share to be gone on with: version, data, options and ``more``."""
    return f"{key(__version__, *more, manifest.place, manifest.fingerprint, resolved(options)):016x}"


def open_run(
    folder: Path, identity: str, options: Options, manifest: Manifest, data: Any, command: str
) -> RunFile:
    """The run in this folder, begun or gone on with.

    The first process makes the folder and reads the pictures; the others wait here until both are there.

    Raises:
        UsageError: another run is there, and what is known of the difference is said; or files that are no run.
    """
    if not parallel.is_first():
        parallel.barrier()
    return RunFile(
        folder,
        identity,
        options,
        data=printable(str(data if isinstance(data, (str, Path)) else manifest.root)),
        command=printable(command),
        changes=differences(manifest, folder / "splits.csv"),
    )


def is_finished(run_file: RunFile, teller: Teller) -> bool:
    """Whether the run has ended already; then it is told, and the waiting processes may go on."""
    if run_file.finished:
        teller.tell(f"this run is finished already: {run_file.folder}")
        if parallel.is_first():
            parallel.barrier()
    return run_file.finished


@contextmanager
def open_workshop(
    run_file: RunFile,
    teller: Teller,
    *,
    save_every: int,
    feature_backend: str = "auto",
    compile: bool = False,
) -> Iterator[Workshop]:
    """The workshop of a run, whose plan and log lie in its folder."""
    log = Recorder(run_file.folder / "metrics.jsonl") if parallel.is_first() else nullcontext()
    with log as recorder:
        yield Workshop(
            cache=cache_folder(),
            folder=run_file.folder,
            device=device(),
            feature_backend=feature_backend,
            log=_log_to(recorder),
            tell=teller.tell,
            progress=teller.progress,
            plan=run_file.plan,
            keep_plan=run_file.save,
            compile=compile,
            save_every=save_every,
        )


def _log_to(recorder: Recorder | None) -> Callable[[str, int, dict[str, float]], None]:
    """Writes a stage's scalars; what an earlier, killed process wrote beyond its checkpoint is cut off first."""
    seen: set[str] = set()

    def log(stage: str, step: int, scalars: dict[str, float]) -> None:
        if recorder is None:  # only the first process writes
            return
        if stage not in seen:
            seen.add(stage)
            recorder.truncate_after(stage, step - 1)
        recorder.write(stage, step, scalars)

    return log
