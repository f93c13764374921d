"""The loop. Everything that happens in a step happens here, in this order."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import NoReturn

import torch

from handful import parallel
from handful.engine import interrupt
from handful.engine.state import TrainingState
from handful.randomness import key
from handful.types import Interrupted, NotFinite, Stream, Update


def fit(
    state: TrainingState,
    update: Update,
    stream: Stream,
    *,
    steps: int,
    log: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
    log_every: int = 10,
    evaluate: Callable[[TrainingState], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    save: Callable[[TrainingState], object] = lambda state: None,
    save_every: int = 0,
    names: Callable[[torch.Tensor], list[str]] = lambda index: list(map(str, index.tolist())),
) -> None:
    """Train from ``state.step`` up to ``steps``.

    Args:
        log: takes the step and its scalars, every ``log_every`` steps and at the last one.
        evaluate: called every ``evaluate_every`` steps (0: never); its scalars are logged.
        save: called every ``save_every`` steps (0: only when told to stop); returns where it saved.
        names: turns the batch's ``index`` into file names, for the message when the loss is not finite.

    Raises:
        NotFinite: the loss (or, when it is to be saved, a weight) is NaN or infinite; says the step, the
            files and the last checkpoint's step.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    saved_at = state.step
    with interrupt.finishing():
        for batch in stream.batches(state.step) if state.step < steps else ():
            # layers with noise of their own (dropout) draw from the default generator: tie it to the step
            _seed(key(state.seed, state.stage, "layers", state.step, parallel.rank()))
            scalars = update(state, batch)
            if parallel.any_says(not torch.isfinite(scalars["loss"])):
                _stop(f"the loss became {scalars['loss'].item()}", state, names(batch["index"]), saved_at)
            state.step += 1
            last = state.step == steps
            if state.step % log_every == 0 or last:
                log(state.step, {name: float(parallel.mean(value)) for name, value in scalars.items()})
            if evaluate and evaluate_every and (state.step % evaluate_every == 0 or last):
                log(state.step, evaluate(state))
            saving = bool(save_every) and state.step % save_every == 0
            number = interrupt.requested()
            stopping = parallel.any_says(number is not None)
            if (saving or stopping or last) and parallel.any_says(not _finite(state)):
                _stop("a weight became infinite or NaN", state, names(batch["index"]), saved_at)
            if saving and not last:
                save(state)
                saved_at = state.step
            if stopping:
                raise Interrupted(number or signal.SIGTERM, saved=save(state))
            if last:
                break


def _seed(number: int) -> None:
    """``torch.manual_seed``, which without a GPU spends most of a millisecond on noting who asked for one."""
    if torch.cuda.is_available():
        torch.manual_seed(number)
    else:
        torch.default_generator.manual_seed(number)


def _finite(state: TrainingState) -> bool:
    """Whether every weight is a number: a state that is not must never replace a good checkpoint."""
    weights = [p.detach() for model in state.models.values() for p in model.parameters()]
    largest = torch._foreach_norm(weights, float("inf")) if weights else ()
    return all(bool(torch.isfinite(value)) for value in largest)


def _stop(what: str, state: TrainingState, files: list[str], saved_at: int) -> NoReturn:
    """Raise ``NotFinite`` with the step, the files of its batch and the last good checkpoint."""
    shown = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
    raise NotFinite(
        f"{what} at step {state.step} of stage '{state.stage}' on {shown}",
        fix=f"lower the learning rate, or look at these pictures; last good checkpoint: step {saved_at}",
    )
