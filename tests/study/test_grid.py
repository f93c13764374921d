"""The grid: paired and nested draws, cells that are never measured twice, kills, failures, several processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

import handful.study.grid as compare
from handful import machine
from handful.data.images import from_array
from handful.study.contenders import Contender, line_up, parse
from handful.study.draws import Source, draws_table
from handful.study.grid import Cell, Grid, run
from handful.types import UsageError

PER_CLASS = 24
TIMES = ("seconds", "peak_memory")


def blobs(seed: int = 0, classes: int = 3, test: bool = True, side: int = 8) -> Source:
    """Gray pictures of ``classes`` kinds: a bright bar at a place of its own, with noise."""
    rng = np.random.RandomState(seed)
    y = np.repeat(np.arange(classes), PER_CLASS)
    x = rng.randint(0, 120, (len(y), side, side))
    for row, k in enumerate(y):
        x[row, :, 2 * k : 2 * k + 2] += 80
    rows = np.arange(len(y))
    held = rows % 3 == 0 if test else np.zeros(len(y), bool)
    return Source(
        from_array(x.clip(0, 255).astype(np.uint8)), y, rows[~held], rows[held], tuple("abcdefg"[:classes])
    )


def without_times(cells: list[Cell]) -> list[dict[str, object]]:
    return [{k: v for k, v in asdict(c).items() if k not in TIMES} for c in cells]


def test_draws_are_nested_paired_and_stratified() -> None:
    source = blobs()
    four, nine = source.drawn(4, 7), source.drawn(9, 7)
    assert set(four) < set(nine)
    assert np.bincount(source.y[nine]).tolist() == [9, 9, 9]
    assert not set(nine) & set(source.test)
    (task, rows), *none = source.tasks(4, 7)
    assert not none and rows.tolist() == source.test.tolist()
    assert task.labelled.tolist() == four.tolist()
    assert sorted([*task.labelled.tolist(), *task.unlabelled.tolist()]) == source.pool.tolist()
    assert task.y.tolist() == source.y[four].tolist()
    assert not np.array_equal(source.drawn(4, 8), four)


def test_draws_table_lists_every_draw_in_order_of_rank() -> None:
    source = blobs()
    table = draws_table(source, (1, 4), (0, 3))
    assert len(table) == 2 * 3 * 4
    for seed in (0, 3):
        for size in (1, 4):
            names = {name for s, _, rank, name in table if s == seed and rank < size}
            assert names == {source.images.names[row] for row in source.drawn(size, seed)}


def test_without_a_test_part_every_labelled_picture_is_held_out_once() -> None:
    source = blobs(test=False)
    scored: list[int] = []
    for task, rows in source.tasks(5, 2):
        assert not set(rows.tolist()) & set(task.labelled.tolist())
        assert not set(rows.tolist()) & set(task.unlabelled.tolist())
        assert np.bincount(task.y.numpy()).tolist() == [5, 5, 5]
        scored += rows.tolist()
    assert sorted(scored) == source.pool.tolist()
    assert source.most_labels() == PER_CLASS - PER_CLASS // 4  # a quarter of each class is held out


def test_contenders_are_read_from_words() -> None:
    assert parse("propagation") == Contender("propagation")
    found = parse("fine-tune@lite0:training.steps=40,method.smoothing=0.1")
    assert (found.recipe, found.on) == ("fine-tune", "lite0")
    assert found.training == {"steps": 40} and found.method == {"smoothing": 0.1}
    assert parse(found.name) == found
    timm = parse("fine-tune@timm:resnet18:training.optimizer=sgd")
    assert (timm.on, timm.training) == ("timm:resnet18", {"optimizer": "sgd"})
    for wrong in ("fine-tun", "logistic:training.steps=4", "fine-tune:steps=4", "auto:training.steps=3"):
        with pytest.raises(UsageError):
            parse(wrong)


def test_labelled_only_baselines_are_always_there() -> None:
    names = [c.name for c in line_up([parse("pseudo-label:training.steps=5")], blobs())]
    assert names == [
        "logistic@pixels", "nearest-mean@pixels", "knn@pixels", "supervised@pixels:training.steps=5",
        "pseudo-label@pixels:training.steps=5",
    ]  # fmt: skip


def test_how_a_consistency_recipe_starts_is_no_affair_of_its_twin() -> None:
    names = [c.name for c in line_up([parse("fixmatch:training.start=random,training.steps=5")], blobs())]
    assert [name for name in names if name.startswith("supervised")] == ["supervised@pixels:training.steps=5"]


def test_figures_are_those_of_the_recipe_itself(tmp_path: Path) -> None:
    """Accuracy, balanced accuracy and calibration error of a cell, counted by hand from nearest means of pixels."""
    source = replace(blobs(), test=blobs().test[:-6])  # the last class has fewer test pictures
    (cell,) = run(Grid((parse("nearest-mean@pixels"),), (4,), (1,)), lambda: source, tmp_path, tmp_path)
    from handful.recipes.table import find
    from handful.recipes.task import Workshop

    (task, rows) = next(iter(source.tasks(4, 1)))
    p = (
        find("nearest-mean")
        .run(task, Workshop(tmp_path, tmp_path), on="pixels", stage="nearest-mean")
        .logits(rows)
        .softmax(1)
    )
    guess, truth = p.argmax(1).numpy(), source.y[rows.numpy()]
    by_class = [float((guess[truth == k] == k).mean()) for k in range(3)]
    assert cell.accuracy == pytest.approx(float((guess == truth).mean()))
    assert cell.balanced_accuracy == pytest.approx(sum(by_class) / 3)
    assert cell.macro_f1 == pytest.approx(f1_score(truth, guess, average="macro"))
    confidence, gaps = p.amax(1).numpy(), 0.0
    for low in np.arange(10) / 10:
        inside = (confidence > low) & (confidence <= low + 0.1)
        gaps += abs(float((guess == truth)[inside].sum()) - float(confidence[inside].sum()))
    assert cell.calibration_error == pytest.approx(gaps / len(truth), abs=1e-6)
    assert (cell.n_labels, cell.n_scored) == (12, len(rows))


def test_a_second_call_runs_only_what_is_new(tmp_path: Path) -> None:
    source = blobs()
    told: list[str] = []
    first = Grid((parse("logistic@pixels"), parse("knn@pixels")), (1, 4), (0, 1))
    before = run(first, lambda: source, tmp_path, tmp_path, tell=told.append)
    assert len([line for line in told if line.startswith("[")]) == 8
    told.clear()
    again = run(first, lambda: source, tmp_path, tmp_path, tell=told.append)
    assert again == before and told == ["8 of 8 cells are there already"]
    wider = replace(first, contenders=(*first.contenders, parse("nearest-mean@pixels")))
    told.clear()
    run(wider, lambda: source, tmp_path, tmp_path, tell=told.append)
    assert len(told) == 5 and all("nearest-mean" in line for line in told[1:])
    changed = replace(first, contenders=(first.contenders[0], parse("knn@pixels:method.k=3")))
    told.clear()
    run(changed, lambda: source, tmp_path, tmp_path, tell=told.append)
    assert len(told) == 5 and all("knn" in line for line in told[1:])


def test_other_labels_are_another_cell(tmp_path: Path) -> None:
    source, contender = blobs(), parse("knn@pixels")
    wrong = source.y.copy()
    wrong[source.pool[0]] = (wrong[source.pool[0]] + 1) % 3
    places = {compare.folder_of(tmp_path, s, contender, 1, 0) for s in (source, replace(source, y=wrong))}
    assert len(places) == 2
    backends = {
        compare.folder_of(tmp_path, source, contender, 1, 0, b) for b in ("auto", "torch", "openvino")
    }
    assert len(backends) == 3, "figures of one backend are not those of another"


def test_a_space_that_is_not_there_is_no_contender() -> None:
    with pytest.raises(UsageError, match="no backbone 'lite1'") as caught:
        parse("logistic@lite1")
    assert "lite0" in caught.value.fix


def test_a_start_is_measured_against_its_own_settings_without_it() -> None:
    c = parse("supervised:method.view=weak,training.init=simclr,training.steps=2")
    names = [x.name for x in line_up([c], blobs())]
    assert "supervised@pixels:method.view=weak,training.steps=2" in names, names


def test_a_failed_cell_is_written_down_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = blobs()
    grid = Grid((parse("logistic@pixels"), parse("knn@pixels")), (2,), (0,))
    good = compare._fit

    def broken(contender: Contender, *rest: object) -> object:
        if contender.recipe == "logistic":
            raise ValueError("the planted reason\nand more")
        return good(contender, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "_fit", broken)
    failed, fine = run(grid, lambda: source, tmp_path, tmp_path)
    assert failed.failed == "the planted reason" and failed.accuracy is None
    assert fine.accuracy is not None and fine.accuracy > 0.5
    monkeypatch.setattr(compare, "_fit", good)
    mended, same = run(grid, lambda: source, tmp_path, tmp_path)
    assert not mended.failed and same == fine


def test_steps_are_decided_once_for_all_draws(tmp_path: Path) -> None:
    contender = parse("supervised@pixels:training.batch=4,training.max_steps=30", seconds=0.2)
    cells = run(Grid((contender,), (2,), (0, 1, 2)), blobs, tmp_path, tmp_path)
    assert len({c.steps for c in cells}) == 1 and cells[0].steps >= 20


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    contender = (parse("logistic@pixels"),)
    with pytest.raises(UsageError, match="rarest class has 16 beside the test part"):
        run(Grid(contender, (1, 17), (0,)), blobs, tmp_path, tmp_path)
    with pytest.raises(UsageError, match="sizes of at least 1"):
        run(Grid(contender, (), (0,)), blobs, tmp_path, tmp_path)
    lonely = blobs(test=False)
    one = np.concatenate([np.flatnonzero(lonely.y == k)[: 1 if k == 0 else None] for k in range(3)])
    with pytest.raises(UsageError, match="single labelled picture"):
        run(Grid(contender, (1,), (0,)), lambda: replace(lonely, pool=one), tmp_path, tmp_path)


def test_two_processes_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many threads as each of the two has: another number of threads adds in another order."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(max(1, machine.cores() // 2)))
    words = ("logistic@pixels", "propagation@pixels", "supervised@pixels:training.steps=6,training.batch=4")
    grid = Grid(tuple(map(parse, words)), (1, 3), (0, 1))
    before = torch.get_num_threads()
    one = run(grid, blobs, tmp_path / "one", tmp_path / "cache")
    torch.set_num_threads(before)
    two = run(grid, blobs, tmp_path / "two", tmp_path / "cache", jobs=2)
    assert without_times(one) == without_times(two)


SWEEP = """
import sys, json
from pathlib import Path
from dataclasses import asdict
from tests.study.test_grid import blobs, without_times
from handful.study.grid import Grid, run
from handful.study.contenders import parse
words = ("logistic@pixels", "propagation@pixels", "supervised@pixels:training.steps=12,training.batch=4")
grid = Grid(tuple(map(parse, words)), (1, 4), (0, 1, 2))
folder = Path(sys.argv[1])
cells = run(grid, blobs, folder, folder / "cache", tell=lambda line: print(line, flush=True))
(folder / "done.json").write_text(json.dumps(without_times(cells)))
"""


def test_a_grid_killed_ten_times_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SWEEP]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[2]

    def start(folder: Path) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([*command, str(folder)], stdout=pipe, text=True, env=settings, cwd=root)

    calm = start(tmp_path / "calm")
    assert calm.wait(120) == 0
    rng, kills = random.Random(0), 0
    folder = tmp_path / "killed"
    while kills < 10:
        process = start(folder)
        assert process.stdout is not None
        lines = rng.randint(1, 2)  # kill after so many lines, a moment later
        while lines and process.stdout.readline():
            lines -= 1
        time.sleep(rng.random() * 0.05)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        kills += 1
    assert kills == 10, "the sweep ended before it was killed ten times"
    last = start(folder)
    assert last.wait(120) == 0
    results = [json.loads((f / "done.json").read_text()) for f in (tmp_path / "calm", folder)]
    assert results[0] == results[1]
