"""The protocols and small values that every part of handful shares.

Legend: B pictures of a batch, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:  # torch is slow to import; errors and protocols must not pay for it
    from torch import Tensor, nn
    from torch.optim import Optimizer

Batch = Mapping[str, "Tensor"]
"""Named tensors of one step: ``x`` [B, C, H, W], ``y`` [B], ``weak``, ``strong``, ``index`` ..., and ``draw``, the key
of what a method draws by itself."""

Models = Mapping[str, "nn.Module"]
"""Networks by role: ``student``, ``teacher``, ``critic``, ``memory``."""


class Output(NamedTuple):
    """What every model's ``forward`` returns."""

    features: Tensor  # [B, D]
    logits: Tensor  # [B, K]
    auxiliary: tuple[Tensor, ...] = ()  # logits [B, K] of auxiliary heads (GoogLeNet), in training only


class Loss(NamedTuple):
    """A scalar to descend, and its named parts for the log."""

    total: Tensor
    terms: dict[str, Tensor]


class InputSpec(NamedTuple):
    """What a network wants to see: square pictures of ``size`` px, (x / 255 - mean) / std."""

    size: int
    channels: int = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


class State(Protocol):
    """What an update works on: networks by role, their optimisers, the step, the names of the random draws."""

    models: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    step: int
    seed: int
    stage: str

    @property
    def precision(self) -> Callable[[], AbstractContextManager[Any]]:
        """The number format of forward passes, as a context."""
        ...

    def advance(self, role: str) -> None:
        """One step of a role's optimiser, at this step's learning rates."""


class Update(Protocol):
    """Who steps, in which order. Returns scalars for the log."""

    def __call__(self, state: Any, batch: Batch) -> dict[str, Tensor]: ...


class Stream(Protocol):
    """Batches as a pure function of (seed, stage, step); a rank takes its slice."""

    def batches(self, start: int) -> Iterator[Batch]: ...


class HandfulError(Exception):
    """An error for the user: what is wrong (with the file's name), why, and the fix.

    ``exit_code`` is what the command line returns: 1 for a failed run.
    """

    exit_code = 1

    def __init__(self, reason: str, *, file: object = None, fix: str = "") -> None:
        self.reason, self.file, self.fix = reason, file, fix
        parts = [f"{file}: {reason}" if file is not None else reason]
        if fix:
            parts.append(f"Fix: {fix}")
        super().__init__("\n".join(parts))


class UsageError(HandfulError):
    """The command or its input cannot be used as given (exit code 2)."""

    exit_code = 2


class Interrupted(HandfulError):
    """The run was told to stop; its state is saved (exit code 130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, signal_number: int, saved: object = None) -> None:
        super().__init__("stopped by request", file=saved, fix="give the same command again to go on")
        self.exit_code = 128 + signal_number


class NotFinite(HandfulError):
    """The loss became NaN or infinite."""


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """For the fix of an error: a question after the known name most like ``name``, before which ``prefix`` is written;
    empty where none is like it."""
    import difflib  # only an error needs it

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{prefix}{near[0]}'?" if near else ""
