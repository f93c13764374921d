"""What tests of recipes share."""

from __future__ import annotations

from typing import Any

import pytest

import handful.recipes.train as train
from handful.engine.state import TrainingState


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[TrainingState]:
    """States that ``fit`` was called with, in order (they are at their last step when the test looks)."""
    states: list[TrainingState] = []
    fit = train.fit

    def wrapped(state: TrainingState, *arguments: Any, **options: Any) -> None:
        states.append(state)
        fit(state, *arguments, **options)

    monkeypatch.setattr(train, "fit", wrapped)
    return states
