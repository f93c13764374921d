"""The loop. Everything that happens in a step happens here, in this order."""

from __future__ import annotations

from collections.abc import Callable

import torch

from handful import parallel
from handful.engine import interrupt
from handful.engine.state import State
from handful.randomness import key
from handful.types import Interrupted, NotFinite, Stream, Update


def fit(
    state: State,
    update: Update,
    stream: Stream,
    *,
    steps: int,
    log: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
    log_every: int = 10,
    evaluate: Callable[[State], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    save: Callable[[State], object] = lambda state: None,
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
        NotFinite: the loss is NaN or infinite; says the step, the files and the last checkpoint's step.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    saved_at = state.step
    with interrupt.finishing():
        for batch in stream.batches(state.step):
            if state.step >= steps:
                break
            # layers with noise of their own (dropout) draw from the default generator: tie it to the step
            torch.manual_seed(key(state.seed, state.stage, "layers", state.step, parallel.rank()))
            scalars = update(state, batch)
            if not torch.isfinite(scalars["loss"]):
                files = names(batch["index"])
                shown = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
                raise NotFinite(
                    f"the loss became {scalars['loss'].item()} at step {state.step} of stage '{state.stage}' "
                    f"on {shown}",
                    fix="lower the learning rate, or look at these pictures; "
                    f"last good checkpoint: step {saved_at}",
                )
            state.step += 1
            last = state.step == steps
            if state.step % log_every == 0 or last:
                log(state.step, {name: float(parallel.mean(value)) for name, value in scalars.items()})
            if evaluate and evaluate_every and (state.step % evaluate_every == 0 or last):
                log(state.step, evaluate(state))
            if save_every and state.step % save_every == 0 and not last:
                save(state)
                saved_at = state.step
            if (number := interrupt.requested()) is not None:
                raise Interrupted(number, saved=save(state))
