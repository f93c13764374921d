"""From a method and a network to what the loop trains: roles, their own optimisers and schedules, what follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.recipes.test_train import small_task
from torch import Tensor, nn

from handful import parallel
from handful.engine.assemble import Setup, assemble
from handful.methods.base import Objective
from handful.methods.mean_teacher import MeanTeacher
from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.supervised import Supervised
from handful.models.backbones import create
from handful.models.ema import EMA
from handful.recipes.stage import Stage
from handful.recipes.task import Workshop
from handful.recipes.train import train_network
from handful.recipes.training import Training
from handful.types import Batch, Loss, Models

QUICK = Training(backbone="lenet", steps=4, batch=6, ratio=1, ema=0.9, lr=0.1)


@dataclass(frozen=True)
class WithCritic(Objective):
    """A student and a critic of its features, at a rate and a warm-up of the critic's own."""

    trains: ClassVar = ("student", "critic")
    views: ClassVar = {"x": "plain"}
    optimization: ClassVar = {"critic": {"lr": 0.01, "optimizer": "adamw", "warmup": 0.5}}

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        return {"critic": nn.Linear(int(network.dim), 1)}  # type: ignore[arg-type]

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        out = models["student"](batch["x"])
        loss = (
            nn.functional.cross_entropy(out.logits, batch["y"])
            + models["critic"](out.features).square().mean()
        )
        return Loss(loss, {})


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "cache", tmp_path / "run")


def test_each_role_has_its_own_optimiser_and_schedule(workshop: Workshop, caught: list[Any]) -> None:
    fitted = train_network(Stage("s", small_task(), WithCritic(), QUICK), workshop)
    (state,) = caught
    student, critic = state.optimizers["student"], state.optimizers["critic"]
    assert isinstance(student, torch.optim.SGD) and isinstance(critic, torch.optim.AdamW)
    assert {group["base_lr"] for group in student.param_groups} == {0.1}
    assert {group["base_lr"] for group in critic.param_groups} == {0.01}
    # linear warm-up over half of the 4 steps (critic), over none of them (student: 5 % of 4 is less than a step)
    assert [state.schedules["critic"](step) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert state.schedules["student"](0) == 1.0
    assert set(fitted.roles) == {"student", "critic"}


def test_a_finished_stage_keeps_every_role_and_so_does_one_that_is_taken_up(workshop: Workshop) -> None:
    stage = Stage("s", small_task(), MetaPseudoLabels(tune_steps=0), QUICK)
    first, again = (train_network(stage, workshop) for _ in range(2))
    assert set(first.roles) == set(again.roles) == {"student", "teacher", "memory"}
    for role, module in first.roles.items():
        own, theirs = module.state_dict(), again.roles[role].state_dict()
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[name], theirs[name]) for name in own), role
    student = first.roles["student"].state_dict()
    shipped = first.classifier.backbone.state_dict()
    assert not all(torch.equal(student[name], shipped[name]) for name in student), "what ships is its average"
    assert float(first.roles["memory"].mean) != 0  # type: ignore[arg-type]


def test_wrapping_comes_before_the_optimisers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper may replace the parameters: what is optimised must be what the wrapped network holds."""

    def wrap(model: nn.Module) -> nn.Module:
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(parameter.detach().clone()))
        return model

    monkeypatch.setattr(parallel, "wrap", wrap)
    network = create("lenet", n_classes=3, channels=1, size=8, seed=0)

    def sgd(role: str, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": list(model.parameters()), "base_lr": 0.1}], 0.1)

    rows = torch.arange(0)
    state, _ = assemble(Supervised(), {"student": network}, sgd, Setup(), n_classes=3, unlabelled=rows)
    held = {id(p) for p in state.models["student"].parameters()}
    assert {id(p) for g in state.optimizers["student"].param_groups for p in g["params"]} == held


def test_every_moving_average_follows_and_a_given_role_stays(workshop: Workshop) -> None:
    network = create("lenet", n_classes=3, channels=1, size=8, seed=0)
    bystander = create("lenet", n_classes=3, channels=1, size=8, seed=1)
    before = {name: value.clone() for name, value in bystander.state_dict().items()}

    def sgd(role: str, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": list(model.parameters()), "base_lr": 0.1}], 0.1)

    models: Mapping[str, nn.Module] = {"student": network, "bystander": bystander}
    state, update = assemble(
        MeanTeacher(decay=0.5), models, sgd, Setup(average=0.9), n_classes=3, unlabelled=torch.arange(4)
    )
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    update(state, {"x": x, "y": torch.arange(6) % 3, "weak": x, "strong": x})
    for role in ("teacher", "average"):
        follower = state.models[role]
        assert isinstance(follower, EMA) and int(follower.t) == 1
    assert all(torch.equal(bystander.state_dict()[name], value) for name, value in before.items())
