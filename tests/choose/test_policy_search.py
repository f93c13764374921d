"""The search of a policy: the race by hand, planted optima with real training, going on after a kill."""

from __future__ import annotations

import json
import tomllib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import handful.choose.policy_search as module
import handful.data.split as split
from handful.augment.named import make, read_policy
from handful.augment.operations import apply
from handful.augment.search import affordable, candidates, measurements, race
from handful.choose.policy_search import SearchOptions, search
from handful.data.images import from_array
from handful.randomness import uniform
from handful.recipes.task import Task, Workshop
from handful.types import HandfulError, UsageError

SIDE = 16


def test_candidates_are_views_and_differ() -> None:
    some = list(islice(candidates("weak", seed=0), 60))
    assert some[0] == "weak"
    assert len(set(some)) > 55
    for text in some:
        make(text)
    gray = list(islice(candidates("weak", seed=0, gray=True), 60))
    assert not any("color" in text for text in gray)
    assert some[:20] == list(islice(candidates("weak", seed=9), 20))


def test_the_race_leaves_the_best_and_measures_as_often_as_it_says() -> None:
    worth = {f"v{i}": i / 10 for i in range(9)}
    asked: list[tuple[str, int]] = []

    def measure(view: str, number: int) -> np.ndarray:
        asked.append((view, number))
        return (np.arange(10) < 10 * worth[view]).astype(float)

    table = race(list(worth), measure)
    assert table[0].view == "v8"
    assert [t.view for t in table if t.view == "v0"] == ["v0"]
    base = next(t for t in table if t.view == "v0")
    assert len(base.rounds) == len(table[0].rounds), "the base is not there for comparison"
    assert len(asked) == len(set(asked)) == measurements(9)
    assert {number for _, number in asked} == {0, 1, 2}
    assert measurements(affordable(40)) <= 40 < measurements(affordable(40) + 1)


def planted(operation: str, values: torch.Tensor, n: int = 240) -> tuple[Task, torch.Tensor]:
    """Three classes that differ by the length of a bar, 16 labels each; every picture is changed at random by one
    operation, of which so few labels do not show all. Gray, so that nothing is mirrored."""
    x = np.full((n, 1, SIDE, SIDE), 40, np.float64)
    y = torch.arange(n) % 3
    for i, k in enumerate(y.tolist()):
        half = 2 + 2 * k
        x[i, 0, 7:9, 8 - half : 8 + half] = 170
    x *= 1 + 0.15 * np.random.RandomState(0).rand(*x.shape)
    changed = apply(operation, torch.from_numpy(x.astype(np.uint8)), values, fill=50)
    rows = torch.arange(n)
    return Task(from_array(changed.numpy()), rows[:48], y[:48], rows[:0], ("one", "two", "three")), y


LIGHT, TURN = "plain+brightness:low=0.3:high=1.9", "plain+rotate:low=-90:high=90:fill=50"
SOLARIZED = "plain+solarize"


@pytest.mark.parametrize(
    ("operation", "values", "views", "winner"),
    [
        ("rotate", 180 * uniform((240,), "planted") - 90, (LIGHT, TURN, "plain+invert"), TURN),
        ("solarize", 255 * uniform((240,), "planted"), (LIGHT, TURN, SOLARIZED), SOLARIZED),
    ],
    ids=["rotate", "solarize"],
)
def test_a_planted_optimum_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    values: torch.Tensor,
    views: tuple[str, ...],
    winner: str,
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(split, "MOST_FOLDS", 2)  # quicker
    task, _ = planted(operation, values)
    options = SearchOptions("supervised", base="plain", steps=80, views=views)
    found = search(task, Workshop(tmp_path / "cache", tmp_path), options, tmp_path / "search")
    assert found.chosen == winner
    assert found.gain is not None
    assert found.gain.value > 0
    written = tomllib.loads((tmp_path / "search" / "policy.toml").read_text())
    assert written["view"] == found.chosen == read_policy(tmp_path / "search" / "policy.toml")
    assert {row["view"] for row in written["tried"]} == {"plain", *views}


def small_task() -> Task:
    task, _ = planted("identity", torch.zeros(240), 240)
    return task


def test_a_killed_search_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = SearchOptions("supervised", base="plain", steps=20, views=("plain+rotate", "plain+invert"))
    whole = search(small_task(), Workshop(tmp_path / "c", tmp_path), options, tmp_path / "whole")
    lines = (tmp_path / "whole" / "search.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "search.jsonl").write_text("".join(lines[:3]) + '{"view": "plain+rot')
    trained: list[str] = []
    train = module.fit_candidate

    def counted(*arguments: Any, **more: Any) -> object:
        trained.append(str(arguments))
        return train(*arguments, **more)

    monkeypatch.setattr(module, "fit_candidate", counted)
    again = search(small_task(), Workshop(tmp_path / "c", tmp_path), options, tmp_path / "half")
    measured = [json.loads(line) for line in lines if "right" in line]
    assert len(trained) == 4 * (len(measured) - 2), "what was measured before was measured again"
    assert again.chosen == whole.chosen
    rights = [
        [json.loads(line).get("right") for line in text.splitlines()]
        for text in ("".join(lines), (tmp_path / "half" / "search.jsonl").read_text())
    ]
    assert rights[0] == rights[1]
    trained.clear()
    search(small_task(), Workshop(tmp_path / "c", tmp_path), options, tmp_path / "half")
    assert trained == [], "a finished search trains nothing"
    other = SearchOptions("supervised", base="plain", steps=21, views=options.views)
    with pytest.raises(HandfulError, match="other options"):
        search(small_task(), Workshop(tmp_path / "c", tmp_path), other, tmp_path / "half")


def test_a_search_never_looks_beyond_the_labelled_pictures(tmp_path: Path) -> None:
    """Pictures that are not labelled may turn to noise: not a digit of the search changes."""
    options = SearchOptions("supervised", base="plain", steps=20, views=("plain+invert",))
    ends = []
    for noise in (False, True):
        task = small_task()
        pixels = task.images.data.clone()
        if noise:
            pixels[48:] = torch.randint(256, pixels[48:].shape, dtype=torch.uint8)
        task = Task(from_array(pixels.numpy()), task.labelled, task.y, task.unlabelled, task.classes)
        folder = tmp_path / str(noise)
        search(task, Workshop(tmp_path / "c", tmp_path), options, folder)
        ends.append(
            [json.loads(line).get("right") for line in (folder / "search.jsonl").read_text().splitlines()]
        )
    assert ends[0] == ends[1]


def test_what_cannot_be_searched_is_told(tmp_path: Path) -> None:
    workshop, task = Workshop(tmp_path, tmp_path), small_task()
    with pytest.raises(UsageError, match="through no view"):
        search(task, workshop, SearchOptions("logistic"), tmp_path)
    with pytest.raises(UsageError, match="no view 'wek'"):
        search(task, workshop, SearchOptions(base="wek"), tmp_path)
    lone = Task(task.images, task.labelled[:4], task.y[:4], task.unlabelled, task.classes)
    with pytest.raises(UsageError, match="a single labelled picture"):
        search(lone, workshop, SearchOptions(), tmp_path)
