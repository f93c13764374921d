"""Noisy Student: what is selected, by whom it is labelled, who learns it, and where a killed run goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.recipes.test_train import small_task
from torch import Tensor

import handful.recipes.train as train
from handful.choose.auto import choose
from handful.choose.prior import PriorTable
from handful.engine.state import TrainingState
from handful.inference.logits import predict
from handful.recipes.candidate import Candidate
from handful.recipes.noisy_student import NoisyStudent, select
from handful.recipes.table import RECIPES, find
from handful.recipes.task import Workshop
from handful.recipes.training import Training
from handful.types import Interrupted, UsageError

QUICK = Training(backbone="small-resnet", steps=9, batch=6, ratio=1, ema=0.0)


def probabilities(m: int = 40, k: int = 4) -> Tensor:
    """Unbalanced: the first class is the most likely answer of most."""
    rng = np.random.Generator(np.random.Philox(key=1))
    return torch.from_numpy(rng.dirichlet([2.0, 0.7, 0.7, 0.25], m)).float()[:, :k]


def by_hand(p: Tensor, threshold: float, wanted: int) -> tuple[Counter[int], list[set[int]]]:
    """Naive loop: of each class the ``wanted`` surest rows, in Python."""
    best = []
    for k in range(p.shape[1]):
        rows = [j for j in range(len(p)) if p[j].argmax() == k and float(p[j].max()) >= threshold]
        best.append(set(sorted(rows, key=lambda j: -float(p[j].max()))[:wanted]))
    return Counter({k: len(rows) for k, rows in enumerate(best)}), best


def test_the_best_n_of_each_class_and_repeats_where_there_are_fewer() -> None:
    p = probabilities()
    rows = select(p, NoisyStudent(threshold=0.3, per_class=6))
    label = p.argmax(1)
    counts, best = by_hand(p, 0.3, 6)
    assert min(counts.values()) < 6 <= max(counts.values()), "both cases occur"
    for k in range(4):
        own = rows[label[rows] == k].tolist()
        assert len(own) == 6 and set(own) == best[k]
    assert rows.tolist() == sorted(rows.tolist())


def test_without_a_number_the_kept_ones_are_shared_out_equally() -> None:
    p = probabilities(200)
    kept = int((p.amax(1) >= 0.5).sum())
    assert kept < len(p)
    rows = select(p, NoisyStudent(threshold=0.5))
    assert Counter(p.argmax(1)[rows].tolist()) == Counter(dict.fromkeys(range(4), kept // 4))


def test_without_balancing_all_that_are_sure_enough() -> None:
    p = probabilities()
    rows = select(p, NoisyStudent(threshold=0.6, balance=False))
    assert rows.tolist() == [j for j in range(len(p)) if float(p[j].max()) >= 0.6]
    with pytest.raises(UsageError, match="confidence 2"):
        select(p, NoisyStudent(threshold=2.0))


def test_repeats_are_a_function_of_the_seed() -> None:
    p = probabilities()
    method = NoisyStudent(per_class=20)
    assert torch.equal(select(p, method, 1), select(p, method, 1))
    assert not torch.equal(select(p, method, 1), select(p, method, 2))


def test_a_class_that_the_teacher_never_names_stays_empty() -> None:
    p = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0]])
    rows = select(p, NoisyStudent(per_class=2))
    assert rows.tolist() == [0, 1, 2, 2]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "cache", tmp_path / "run")


def run(workshop: Workshop, *, training: Training = QUICK, **changes: Any) -> Any:
    method = NoisyStudent(**{"threshold": 0.0, **changes})
    return find("noisy-student").run(
        small_task(), workshop, on="pixels", method=method, training=training, stage="ns/0.1"
    )


def test_no_rounds_leave_the_teacher_bit_for_bit(workshop: Workshop, tmp_path: Path) -> None:
    fitted = run(workshop, rounds=0)
    row = RECIPES["supervised"]
    alone = row.run(
        small_task(),
        Workshop(tmp_path / "a", tmp_path / "b"),
        on="pixels",
        training=QUICK,
        stage="ns-teacher/0.1",
    )
    a, b = fitted.classifier.state_dict(), alone.classifier.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_each_round_labels_with_the_last_network_un_noised(
    workshop: Workshop, caught: list[TrainingState]
) -> None:
    """What a student is told is what its teacher says of plain pictures in evaluation mode, though the teacher was
    trained with dropout and stochastic depth."""
    told: list[tuple[str, Tensor, Tensor]] = []
    workshop.labelled = lambda stage, rows, classes: told.append((stage, rows, classes))
    task = small_task()
    run(workshop, rounds=2, balance=False)
    assert [s.stage for s in caught] == ["ns-teacher/0.1", "ns-1/0.1", "ns-2/0.1"]
    assert [stage for stage, _, _ in told] == ["ns-1/0.1", "ns-2/0.1"]
    for state, (_, rows, classes) in zip(caught, told):
        network: Any = state.models["student"]
        network.eval()
        assert torch.equal(rows, task.unlabelled)
        assert torch.equal(predict(network, task.images, rows, network.spec).argmax(1), classes)
    first, second, _ = (s.models["student"] for s in caught)
    assert first.drop.p == 0 and second.drop.p == 0.5  # type: ignore[union-attr]
    rates = [m.rate for m in second.modules() if type(m).__name__ == "DropPath"]
    assert rates == [0.1, 0.2]


def test_the_chain_is_kept_for_the_report_also_over_a_restart(
    workshop: Workshop, caught: list[TrainingState]
) -> None:
    fitted = run(workshop, rounds=2)
    rows = small_task().labelled
    assert [name for name, _ in fitted.before] == ["teacher", "student 1"] and fitted.name == "student 2"
    for (_, logits), state in zip(fitted.before, caught):
        network: Any = state.models["student"]
        assert torch.equal(logits(rows), predict(network, small_task().images, rows, network.spec))
    training = {"steps": 9, "batch": 6, "ratio": 1, "backbone": "lenet"}
    first, again = (
        choose(
            small_task(),
            workshop,
            only=Candidate("noisy-student", "pixels", training=training),
            prior=PriorTable(),
        )
        for _ in range(2)
    )
    trial, read = first.trials[first.chosen], again.trials[first.chosen]
    assert list(trial.rounds) == ["teacher", "student 1", "student 2"] == list(read.rounds)
    assert trial.logits is not None and torch.equal(trial.rounds["student 2"], trial.logits)
    assert all(torch.equal(trial.rounds[name], read.rounds[name]) for name in trial.rounds)
    assert not torch.equal(trial.rounds["teacher"], trial.rounds["student 1"])
    assert first.trials[first.twin].rounds == {}


def test_students_by_name_the_last_one_stays(workshop: Workshop, caught: list[TrainingState]) -> None:
    lines: list[str] = []
    workshop.tell = lines.append
    run(workshop, rounds=3, students="conv-4, conv-4-2x", training=replace(QUICK, backbone="lenet", size=8))
    kinds = [(type(s.models["student"]).__name__, s.models["student"].dim) for s in caught]
    assert kinds == [("LeNet", 84), ("Conv4", 64), ("Conv4", 128), ("Conv4", 128)]
    assert sum(line.startswith("round") for line in lines) == 3
    assert "% of the answers differ" in lines[-1]
    assert not any("smaller" in line for line in lines)


def test_a_smaller_student_is_told_of(workshop: Workshop) -> None:
    lines: list[str] = []
    workshop.tell = lines.append
    run(workshop, rounds=1, students="linear")
    assert sum("smaller than its teacher" in line for line in lines) == 1


def test_a_run_killed_in_its_second_round_goes_on_there(
    workshop: Workshop, tmp_path: Path, caught: list[TrainingState], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(Workshop(tmp_path / "c", tmp_path / "whole")).classifier.state_dict()
    caught.clear()
    fit = train.fit

    def killed(state: TrainingState, *arguments: Any, **options: Any) -> None:
        if state.stage == "ns-2/0.1":
            options["steps"] = 2
            fit(state, *arguments, **options)
            options["save"](state)
            raise Interrupted(15)
        fit(state, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", killed)
        with pytest.raises(Interrupted):
            run(workshop)
    caught.clear()
    again = run(workshop).classifier.state_dict()
    assert [s.stage for s in caught] == ["ns-2/0.1"], (
        "teacher and first student are taken from the stage cache"
    )
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_hard_and_soft_labels_teach_differently(workshop: Workshop) -> None:
    ends = [run(workshop, rounds=1, hard=hard).classifier.state_dict() for hard in (True, False)]
    assert not all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_without_unlabelled_pictures(workshop: Workshop) -> None:
    task = replace(small_task(), unlabelled=torch.empty(0, dtype=torch.int64))
    with pytest.raises(UsageError, match="there are none"):
        find("noisy-student").run(task, workshop, on="pixels", training=QUICK, stage="noisy-student")
    find("noisy-student").run(
        task, workshop, on="pixels", method=NoisyStudent(rounds=0), training=QUICK, stage="noisy-student"
    )


@pytest.mark.parametrize("wrong", [{"rounds": -1}, {"per_class": -2}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        NoisyStudent(**wrong)
