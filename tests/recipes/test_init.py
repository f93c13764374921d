"""Self-supervised starts: a stage that any training begins from, made once, and measured against training without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import handful.recipes.train as train
from handful.choose.auto import choose
from handful.choose.prior import PriorTable
from handful.data.images import from_array
from handful.methods.supervised import Supervised
from handful.models.backbones import create
from handful.models.norms import find_statistics
from handful.randomness import key
from handful.recipes.candidate import Candidate
from handful.recipes.stage import Stage
from handful.recipes.table import find
from handful.recipes.task import Task, Workshop
from handful.recipes.train import train_network
from handful.recipes.training import INITS, Training
from handful.study.contenders import line_up, parse
from handful.study.draws import Source
from handful.types import UsageError

N, LABELLED, SIDE = 48, 12, 8
SHORT = Training(backbone="conv-4", steps=4, init_steps=3, batch=4, ratio=2, lr=0.05)


def task() -> Task:
    """Three classes: a bright band at the top, in the middle or at the bottom, under noise."""
    x = np.random.Generator(np.random.Philox(key=3)).integers(0, 90, (N, SIDE, SIDE), dtype=np.uint8)
    y = np.arange(N) % 3
    for i, k in enumerate(y):
        x[i, 2 * k : 2 * k + 3] += 130
    rows = torch.arange(N)
    return Task(from_array(x), rows[:LABELLED], torch.from_numpy(y)[:LABELLED], rows[LABELLED:], tuple("abc"))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "cache", tmp_path / "run")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that were trained, in order."""
    seen: list[str] = []
    fit = train.fit

    def counted(state: Any, *arguments: Any, **options: Any) -> None:
        seen.append(state.stage)
        fit(state, *arguments, **options)

    monkeypatch.setattr(train, "fit", counted)
    return seen


@pytest.mark.parametrize("init", INITS)
def test_training_begins_with_the_body_of_the_start_and_a_fresh_head(
    init: str, workshop: Workshop, stages: list[str]
) -> None:
    still = replace(SHORT, init=init, lr=0.0, ema=0.0, steps=1)
    moving = replace(SHORT, init=init)  # the start itself must learn something: it takes the rate of its user
    body = train.self_supervised(Stage("", task(), None, moving), workshop)
    torch.manual_seed(key(0, f"init-{init}", "weights"))
    fresh = dict(create("conv-4", channels=1, size=SIDE).body.named_parameters())
    assert all(not torch.equal(body[name], value) for name, value in fresh.items())
    begun: Any = train_network(Stage("s", task(), Supervised(), still), workshop).classifier.backbone
    plain: Any = train_network(Stage("s", task(), Supervised(), replace(still, init="random")), workshop)
    plain = plain.classifier.backbone
    torch.manual_seed(key(0, f"init-{init}", "weights"))
    first = create("conv-4", channels=1, size=SIDE).body.state_dict()  # the start with a rate of 0 stays here
    for name, value in begun.body.named_parameters():
        assert torch.equal(value, first[name]), name
    assert torch.equal(begun.head.weight, plain.head.weight)
    assert stages == [f"init-{init}", f"init-{init}", "s", "s"]


def test_the_start_is_made_once_for_all_folds_networks_and_kinds_of_training(
    workshop: Workshop, stages: list[str]
) -> None:
    here, training = task(), replace(SHORT, init="patch")
    held = torch.arange(LABELLED) < 3
    for t in (here, here.without(held), here.without(~held)):
        train_network(Stage("supervised", t, Supervised(), training), workshop)
    noisy = replace(training, dropout=0.5, steps=5)
    train_network(Stage("other", here, Supervised(smoothing=0.1), noisy), workshop)
    assert stages.count("init-patch") == 1
    train_network(Stage("supervised", here, Supervised(), replace(training, backbone="lenet")), workshop)
    assert stages.count("init-patch") == 2, "another network needs a start of its own"


def test_without_steps_the_first_that_asks_decides_on_the_time(workshop: Workshop, stages: list[str]) -> None:
    training = replace(SHORT, init="simclr", steps=0, init_steps=0, max_steps=3, seconds=0.01)
    train_network(Stage("a", task(), Supervised(), training), workshop)
    train_network(Stage("b", task(), Supervised(), replace(training, seconds=0.02)), workshop)
    assert stages == ["init-simclr", "a", "b"]
    assert workshop.plan["seconds of init-simclr"] == 0.01


@pytest.mark.parametrize("name", ["supervised", "fixmatch", "noisy-student", "mpl", "jigsaw"])
def test_every_recipe_that_trains_from_scratch_can_start_so(
    name: str, workshop: Workshop, stages: list[str]
) -> None:
    training = replace(SHORT, init="simclr", backbone="lenet")
    find(name).run(task(), workshop, on="pixels", training=training, stage=name)
    assert stages[0] == "init-simclr" and stages.count("init-simclr") == 1
    assert len(stages) > 1


@pytest.mark.parametrize(("name", "twin"), [("supervised", "supervised"), ("fixmatch", "supervised")])
def test_the_twin_has_neither_unlabelled_pictures_nor_their_start(
    name: str, twin: str, workshop: Workshop, stages: list[str]
) -> None:
    training = {"steps": 4, "init_steps": 2, "batch": 4, "ratio": 2, "init": "jigsaw", "backbone": "lenet"}
    outcome = choose(task(), workshop, only=Candidate(name, "pixels", training=training), prior=PriorTable())
    asked, other = outcome.trials[outcome.chosen], outcome.trials[outcome.twin]
    assert (asked.candidate.recipe, asked.candidate.init, asked.uses_unlabelled) == (name, "jigsaw", True)
    assert (other.candidate.recipe, other.candidate.init, other.uses_unlabelled) == (twin, "", False)
    assert stages.count("init-jigsaw") == 1
    alone = Workshop(workshop.cache, workshop.folder.with_name("alone"))
    without = {k: v for k, v in training.items() if not k.startswith("init")}
    lone = choose(task(), alone, only=Candidate(twin, "pixels", training=without), prior=PriorTable())
    assert stages.count("init-jigsaw") == 1
    if name != twin:  # else its stages have names, and with them weights, of their own
        assert np.array_equal(lone.trials[f"{twin}@pixels"].right, other.right)


def test_a_comparison_measures_it_against_itself_without() -> None:
    here = task()
    y = np.full(N, -1)
    y[:LABELLED] = here.y.numpy()
    source = Source(here.images, y, np.arange(N), np.empty(0, np.int64), here.classes)
    asked = parse("supervised@pixels:training.init=patch,training.steps=5")
    assert asked.uses_unlabelled
    names = {c.name: c.uses_unlabelled for c in line_up([asked], source)}
    assert names[asked.name] and names["supervised@pixels:training.steps=5"] is False
    both = {c.name for c in line_up([parse("fixmatch@pixels:training.init=patch,training.steps=5")], source)}
    assert "supervised@pixels:training.steps=5" in both


def test_what_cannot_be_started() -> None:
    with pytest.raises(UsageError, match="no init 'cold'") as caught:
        Training(init="cold")
    assert "jigsaw" in caught.value.fix
    with pytest.raises(UsageError, match="published weights"):
        Training(backbone="lite0", pretrained=True, init="simclr")
    with pytest.raises(UsageError, match="init-steps"):
        Training(init_steps=-1)


def test_statistics_are_plain_averages_over_the_batches() -> None:
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 2
    norm = torch.nn.BatchNorm2d(3, momentum=0.3).eval()
    find_statistics(norm, x.split(2))
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)))
    variances = torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in x.split(2)])
    torch.testing.assert_close(norm.running_var, variances.mean(0))
    assert norm.momentum == 0.3 and not norm.training


def test_statistics_are_found_as_the_network_is_used() -> None:
    """Dropout would widen the second norm's variance: it is left out, and every module's mode is put back."""
    x = torch.randn(64, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    norm = torch.nn.BatchNorm2d(3)
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), norm)
    model[0].train(), norm.eval()
    find_statistics(model, [x])
    torch.testing.assert_close(norm.running_var, x.flatten(1).var(0))
    assert model[0].training and not norm.training
