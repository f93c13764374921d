"""Recipes of several stages: which stages run, from which weights, and what a second call finds done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipes.test_train import small_task
from torch import nn

import handful.recipes.train as train
from handful.engine.state import TrainingState
from handful.methods.fixmatch import FixMatch
from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.reduced_mpl import ReducedMetaPseudoLabels
from handful.methods.supervised import Supervised
from handful.models.ema import EMA
from handful.recipes.consistency import continued
from handful.recipes.stage import Stage
from handful.recipes.table import RECIPES, changed, find
from handful.recipes.task import Task, Workshop
from handful.recipes.train import train_network
from handful.recipes.training import Training, shortened
from handful.types import UsageError

QUICK = Training(backbone="conv-4", steps=4, batch=6, ratio=1, ema=0.9)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "cache", tmp_path / "run")


def run(task: Task, workshop: Workshop, **changes: Any) -> dict[str, torch.Tensor]:
    method = changed(MetaPseudoLabels(tune_steps=3), changes, "method")
    training = replace(QUICK, start="random")
    fitted = find("mpl").run(task, workshop, on="pixels", method=method, training=training, stage="mpl/0.1")
    return fitted.classifier.backbone.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_teacher_and_student_train_and_the_average_of_the_student_is_tuned_on_the_labels(
    workshop: Workshop, caught: list[TrainingState], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[str, int]] = []
    workshop.log = lambda stage, step, scalars: logged.append((stage, step))
    starts: list[dict[str, torch.Tensor]] = []
    real = train.run

    def spy(stage: Stage, w: Workshop, network: nn.Module, folder: Path) -> Any:
        starts.append({k: v.clone() for k, v in network.state_dict().items()})
        return real(stage, w, network, folder)

    monkeypatch.setattr(train, "run", spy)
    end = run(small_task(), workshop)
    both, alone = caught
    assert logged[-1] == ("mpl-tuned/0.1", 3) and ("mpl/0.1", 4) in logged
    assert set(both.optimizers) == {"student", "teacher"} and set(alone.optimizers) == {"student"}
    first = starts[0]
    assert not same(both.models["teacher"].state_dict(), first), "the teacher learns"
    assert not same(both.models["teacher"].state_dict(), both.models["student"].state_dict())
    average = both.models["average"]
    assert isinstance(average, EMA)
    assert same(starts[1], average.module.state_dict()), "tuning starts from what the first stage gave"
    assert not same(end, starts[1])
    assert alone.optimizers["student"].param_groups[0]["base_lr"] == MetaPseudoLabels().tune_lr


def test_without_tuning_the_student_is_the_result(workshop: Workshop, caught: list[TrainingState]) -> None:
    end = run(small_task(), workshop, tune_steps=0)
    average: Any = caught[0].models["average"]
    assert len(caught) == 1 and same(end, average.module.state_dict())


def test_done_stages_are_taken_up_and_another_student_is_tuned_anew(
    workshop: Workshop, caught: list[TrainingState]
) -> None:
    first = run(small_task(), workshop)
    assert same(run(small_task(), workshop), first) and len(caught) == 2
    run(small_task(), workshop, smoothing=0.0)
    assert len(caught) == 4, (
        "the tuning of another student is another stage, though its own options are the same"
    )


def test_a_continued_stage_of_no_rate_is_where_it_began(workshop: Workshop) -> None:
    fitted = train_network(Stage("s", small_task(), Supervised(), QUICK), workshop)
    still = replace(QUICK, lr=0.0, ema=0.0, steps=1, freeze_norms=True)
    again = continued(fitted, Stage("t", small_task(), Supervised(), still), workshop)
    assert same(again.classifier.backbone.state_dict(), fitted.classifier.backbone.state_dict())


def test_names_of_parts() -> None:
    stage = Stage("mpl", small_task(), MetaPseudoLabels(), QUICK)
    assert stage.part("tuned").name == "mpl-tuned"
    assert replace(stage, name="mpl/0.1").part("tuned").name == "mpl-tuned/0.1"


def test_the_row_of_the_table(workshop: Workshop) -> None:
    row = RECIPES["mpl"]
    assert row.uses_unlabelled and row.labelled_only == "supervised"
    method = row.make(labels="soft", tune_steps=1)
    assert method == MetaPseudoLabels(labels="soft", tune_steps=1, uda_weight=1.0, ramp_steps=100)
    fitted = row.run(small_task(), workshop, on="pixels", method=method, training=QUICK, stage="mpl")
    assert fitted.logits(torch.arange(24)).isfinite().all()


def test_the_stored_teacher_labels_once_and_is_no_part_of_the_students_training(
    workshop: Workshop, caught: list[TrainingState]
) -> None:
    method = ReducedMetaPseudoLabels(teacher="lenet", tune_steps=2)
    fitted = find("mpl-reduced").run(
        small_task(), workshop, on="pixels", method=method, training=QUICK, stage="r/0.1"
    )
    first, teacher, student, alone = caught
    assert [s.stage for s in caught] == ["r-teacher-start/0.1", "r-teacher/0.1", "r/0.1", "r-tuned/0.1"]
    weights = {role: sum(p.numel() for p in m.parameters()) for role, m in student.models.items()}
    assert weights["teacher"] < 500 < weights["student"]
    assert {type(s.models["student"]).__name__ for s in (first, teacher)} == {"LeNet"}
    assert fitted.logits(torch.arange(24)).isfinite().all()
    assert set(alone.optimizers) == {"student"}


@pytest.mark.parametrize(
    "recipe", ["pseudo-label", "noisy-student", "mpl-reduced", "fixmatch", "distill", "mpl"]
)
def test_the_stages_of_a_recipe_share_the_steps_that_its_twin_has_alone(
    recipe: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    fit = train.fit

    def counted(*arguments: Any, **options: Any) -> None:
        steps.append(options["steps"])
        fit(*arguments, **options)

    monkeypatch.setattr(train, "fit", counted)
    row = RECIPES[recipe]
    method = row.make(tune_steps=0) if "mpl" in recipe else row.make()
    training = replace(QUICK, backbone="lenet", steps=12)
    row.run(small_task(), workshop, on="pixels", method=method, training=training, stage=recipe)
    assert sum(steps) == 12


def test_a_stage_has_a_step_at_least() -> None:
    half = shortened(Training(seconds=3.0, steps=1, max_steps=1), 0.5)
    assert (half.seconds, half.steps, half.max_steps) == (1.5, 1, 1)
    assert (shortened(Training(), 0.5).steps, shortened(Training(), 0.5).max_steps) == (
        0,
        0,
    )  # as the time gives


@pytest.mark.parametrize("recipe", ["fixmatch", "noisy-student", "simclr", "mpl"])
def test_a_ratio_of_zero_is_refused(recipe: str, workshop: Workshop) -> None:
    training = replace(QUICK, ratio=0)
    with pytest.raises(UsageError, match="a ratio of 0"):
        RECIPES[recipe].run(small_task(), workshop, on="pixels", training=training, stage=recipe)


@pytest.mark.parametrize("method", [MetaPseudoLabels(labels="soft", tune_steps=0), FixMatch()])
def test_auxiliary_heads_that_get_no_loss_take_no_part(
    method: Any, workshop: Workshop, caught: list[TrainingState]
) -> None:
    training = Training(backbone="googlenet", steps=1, batch=2, ratio=1, size=16)
    train_network(Stage("s", small_task(), method, training), workshop)
    (state,) = caught
    names = [name for name, p in state.models["student"].named_parameters() if not p.requires_grad]
    assert names and all(name.startswith(("body.aux1.", "body.aux2.")) for name in names)


def test_the_time_of_a_step_is_that_of_one_in_which_the_student_learns(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    measured = train.seconds_per_step

    def watched(state: TrainingState, update: Any, *arguments: Any, **options: Any) -> float:
        def noted(state: TrainingState, batch: Any) -> Any:
            steps.append(state.step)
            return update(state, batch)

        before = state.step
        found = measured(state, noted, *arguments, **options)
        assert state.step == before == 0
        return found

    monkeypatch.setattr(train, "seconds_per_step", watched)
    training = replace(QUICK, steps=0, seconds=1e-3)
    train_network(Stage("s", small_task(), MetaPseudoLabels(wait=9, tune_steps=0), training), workshop)
    assert steps == [9] * 6
