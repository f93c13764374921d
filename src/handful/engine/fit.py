"""The loop. Everything that happens in a step happens here, in this order."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from handful import parallel
from handful.engine import interrupt
from handful.engine.state import TrainingState
from handful.randomness import Noise
from handful.types import Batch, Interrupted, NotFinite, Output, Stream, Update

SHOWN = 8  # files that a message names


def fit(
    state: TrainingState,
    update: Update,
    stream: Stream,
    *,
    steps: int,
    log: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
    log_every: int = 10,
    save: Callable[[TrainingState], object] = lambda state: None,
    save_every: int = 0,
) -> None:
    """Train from ``state.step`` up to ``steps``.

    Args:
        log: takes the step and its scalars, every ``log_every`` steps and at the last one.
        save: called every ``save_every`` steps (0: only when told to stop); returns where it saved.

    Raises:
        NotFinite: the loss (or, when it is to be saved, a weight) is NaN or infinite; says the step, the
            files (by ``state.names``) and the last checkpoint's step.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    saved_at = state.step
    with interrupt.finishing():
        for batch in stream.batches(state.step) if state.step < steps else ():
            with Noise(state.seed, state.stage, "layers", state.step, parallel.rank()):
                scalars = update(state, batch)
            if parallel.any_says(not torch.isfinite(scalars["loss"])):
                _stop(f"the loss became {scalars['loss'].item()}", state, batch, saved_at)
            state.step += 1
            last = state.step == steps
            if state.step % log_every == 0 or last:
                log(state.step, {name: float(parallel.mean(value)) for name, value in scalars.items()})
            saving = bool(save_every) and state.step % save_every == 0
            number = interrupt.requested()
            stopping = parallel.any_says(number is not None)
            if (saving or stopping or last) and parallel.any_says(not _finite(state)):
                _stop("a weight became infinite or NaN", state, batch, saved_at)
            if saving and not last:
                save(state)
                saved_at = state.step
            if stopping:
                raise Interrupted(number or signal.SIGTERM, saved=save(state))
            if last:
                break


def _finite(state: TrainingState) -> bool:
    """Whether every weight is a number: a state that is not must never replace a good checkpoint."""
    weights = [p.detach() for model in state.models.values() for p in model.parameters()]
    largest = torch._foreach_norm(weights, float("inf")) if weights else ()
    return all(bool(torch.isfinite(value)) for value in largest)


def _stop(what: str, state: TrainingState, batch: Batch, saved_at: int) -> NoReturn:
    """Raise ``NotFinite`` with the step, the files that it came from (all of the batch, where that cannot be told) and
    the last good checkpoint."""
    everyone = [batch[name] for name in ("index", "u_index") if name in batch]
    guilty = _guilty(state, batch)
    files = state.names(torch.cat(guilty or everyone).unique())
    shown = ", ".join(files[:SHOWN]) + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else "")
    raise NotFinite(
        f"{what} at step {state.step} of stage '{state.stage}' on {'' if guilty else 'a batch of '}{shown}",
        fix=f"lower the learning rate, or look at these pictures; last good checkpoint: step {saved_at}",
    )


def _guilty(state: TrainingState, batch: Batch) -> list[Tensor]:
    """Row numbers of the pictures of a batch with which something is not finite: a number that came with them, or else
    what the student makes of each alone. Empty where that is so for all of them: the weights are at fault then."""
    unlabelled = batch.get("u_index", batch["index"])
    rows = {name: batch["index"] if name in ("x", "y") else unlabelled for name in batch}
    whole = {
        name: value.flatten(1) if value.dim() > 1 else value.unsqueeze(1)
        for name, value in batch.items()
        if value.is_floating_point() and value.dim() and len(value) == len(rows[name])
    }
    found = [rows[name][~value.isfinite().all(1).cpu()] for name, value in whole.items()]
    if not any(map(len, found)) and parallel.size() == 1 and _finite(state):
        shape = batch["x"].shape[1:] if "x" in batch else None
        seen = [name for name in whole if batch[name].dim() == 4 or batch[name].shape[1:] == shape]
        bad = {name: torch.tensor([_breaks(state, one) for one in batch[name]]) for name in seen}
        found = [rows[name][bad[name]] for name in seen]
    everyone = torch.cat([batch["index"], unlabelled]).unique()
    return [] if not found or len(torch.cat(found).unique()) in (0, len(everyone)) else found


@torch.no_grad()
def _breaks(state: TrainingState, x: Tensor) -> bool:
    """Whether the student's answer for one picture is not finite (seen twice, as batch norm wants more than one)."""
    with state.precision(), Noise("twice"):
        out = state.models["student"](torch.stack([x, x]))
    return not bool((out.logits if isinstance(out, Output) else out).isfinite().all())
