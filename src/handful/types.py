"""The protocols and small values that every part of handful shares.

Legend: B pictures of a batch, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:  # torch is slow to import; errors and protocols must not pay for it
    from torch import Tensor, nn

Batch = Mapping[str, "Tensor"]
"""Named tensors of one step: ``x`` [B, C, H, W], ``y`` [B], ``weak``, ``strong``, ``index`` ..."""

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


class Objective(Protocol):
    """Models and a batch to a loss; a frozen dataclass whose fields are its whole configuration."""

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss: ...


class Update(Protocol):
    """Who steps, in which order. Returns scalars for the log."""

    def __call__(self, state: Any, batch: Batch) -> dict[str, Tensor]: ...


class Method(Protocol):
    """A row of ``methods.table``: a frozen dataclass that is an ``Objective`` or brings an ``Update``.

    Three more names may be declared, where the defaults do not do:

    - ``roles(network, n_classes, unlabelled)``: networks and memories besides the student, by role; ``network`` is
      the student with its first weights, ``unlabelled`` the row numbers of those pictures. Default: none.
    - ``trains``: the roles that get an optimiser each. Default: ``("student",)``.
    - ``update(state, batch)``: the method's own order of steps (an ``Update``). Default: descent on the objective.

    Attributes:
        views: which view of the pictures stands under which name of the batch ("x": labelled pictures).
        uses_unlabelled: whether the batch has unlabelled pictures.
    """

    @property
    def views(self) -> Mapping[str, str]: ...
    @property
    def uses_unlabelled(self) -> bool: ...


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
