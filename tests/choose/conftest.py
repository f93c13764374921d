"""A small task and a place to work on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from handful.data.images import from_array
from handful.recipes.task import Task, Workshop


def digits(per_class: int = 4, unlabelled: int = 60, classes: int = 3) -> tuple[Task, Tensor, Tensor]:
    """A task on digits 0 to 2, and row numbers and classes of 30 other pictures."""
    x, y = load_digits(return_X_y=True)
    x, y = x[y < classes], torch.from_numpy(y[y < classes].astype(np.int64))
    images = from_array(np.round(x * 255 / 16).astype(np.uint8).reshape(-1, 8, 8))
    rows = torch.cat([torch.nonzero(y == k).flatten()[:per_class] for k in range(classes)])
    rest = torch.from_numpy(np.setdiff1d(np.arange(len(y)), rows.numpy()))
    names = tuple(str(k) for k in range(classes))
    held = rest[unlabelled : unlabelled + 30]
    return Task(images, rows, y[rows], rest[:unlabelled], names), held, y[held]


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Workshop]:
    numbers = iter(range(99))

    def make(**options: Any) -> Workshop:
        return Workshop(tmp_path / "cache", tmp_path / f"run{next(numbers)}", **options)

    return make
