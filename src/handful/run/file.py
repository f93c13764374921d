"""``run.toml``: what a run was asked, what it planned, how it ended."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from handful import __version__, parallel
from handful.files import hold, release, write_atomic
from handful.inference.model_file import SIDE_CAR, WEIGHTS
from handful.types import HandfulError, UsageError


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: report.html, model.safetensors, predictions.csv and the rest.
        chosen: the candidate that ships.
        accuracy: the headline figure, as a fraction, or None where nothing could be measured.
        interval: its 95 % interval.
        measured_on: what it was measured on.
    """

    folder: Path
    chosen: str
    accuracy: float | None
    interval: tuple[float, float] | None
    measured_on: str

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {**asdict(self), "folder": str(self.folder)}


class Options(Protocol):
    """A verb's options: a frozen dataclass that decides, with the data, what its run gives."""

    @property
    def seed(self) -> int: ...


class RunFile:
    """``run.toml``: what was asked for, what was planned (a resumed run obeys it), and how it ended.

    ``changes`` tells in words how the data differ from those of the run in this folder, where that is known.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        options: Options,
        *,
        data: str,
        command: str,
        changes: str = "",
    ) -> None:
        self.folder, self.path, self.identity, self.options = folder, folder / "run.toml", identity, options
        self.data, self.command, self.seconds = data, command, 0.0
        self.plan: dict[str, Any] = {}
        self.ended: dict[str, Any] = {}
        self.resumed = False
        if self.path.exists():
            try:
                found = tomllib.loads(self.path.read_text())
            except tomllib.TOMLDecodeError as error:
                fix = "remove the folder, or choose another with --out"
                raise HandfulError(f"is damaged ({error})", file=self.path, fix=fix) from error
            started = (folder / "stages").exists() or (folder / WEIGHTS).exists()
            self.resumed = found.get("identity") == identity
            if self.resumed:
                self.plan, self.ended = found.get("plan", {}), found.get("result", {})
            elif started:  # a run that failed before any work was done is simply replaced
                reason = "belongs to a run on other data, with other options, or of another version"
                raise UsageError(
                    f"{reason}: {changes}" if changes else reason,
                    file=folder,
                    fix="choose another folder with --out, or remove this one",
                )
        elif folder.is_dir() and any(path.suffix not in (".tmp", ".lock") for path in folder.iterdir()):
            raise UsageError(
                "is not empty and not a run", file=folder, fix="choose another folder with --out"
            )
        if not self.finished:  # a finished run keeps the command and the versions that made it
            if parallel.is_first():
                hold(folder / "run.lock")
            self.save()

    @property
    def finished(self) -> bool:
        """Whether the run has ended and its model is there."""
        return bool(self.ended) and all((self.folder / name).exists() for name in (WEIGHTS, SIDE_CAR))

    def save(self) -> None:
        """Write the file, whole or not at all."""
        import tomli_w

        if not parallel.is_first():
            return
        content = {
            "identity": self.identity,
            "version": __version__,
            "data": self.data,
            "command": self.command,
            "options": resolved(self.options),
            "plan": self.plan,
            "versions": versions(),
        }
        if self.ended:
            content["result"] = self.ended
        write_atomic(self.path, tomli_w.dumps(content))

    def finish(self, run: Run) -> None:
        """Write down how the run ended."""
        self.ended = {"chosen": run.chosen, "measured_on": run.measured_on, "seconds": round(self.seconds, 1)}
        if run.accuracy is not None:
            self.ended["accuracy"] = run.accuracy
        if run.interval is not None:
            self.ended["interval"] = list(run.interval)
        self.save()
        release(self.folder / "run.lock")

    def result(self) -> Run:
        """The finished run, as the first process wrote it down."""
        if not self.ended:
            self.ended = tomllib.loads(self.path.read_text())["result"]
        interval = self.ended.get("interval")
        return Run(
            self.folder,
            self.ended["chosen"],
            self.ended.get("accuracy"),
            (interval[0], interval[1]) if interval else None,
            self.ended["measured_on"],
        )


def versions() -> dict[str, str]:
    """Versions of what decides the result."""
    names = ("torch", "timm", "numpy", "scikit-learn", "pillow", "safetensors")
    return {
        "handful": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def resolved(options: Options) -> dict[str, Any]:
    return {name: value for name, value in _plain(options).items() if name != "save_every"}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value
