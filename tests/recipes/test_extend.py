"""New classes for a trained classifier: what stays, what trains, what is equal to what."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from handful.augment.views import to_input
from handful.data.images import Images, from_array
from handful.inference.logits import predict
from handful.methods.base import Objective
from handful.methods.forgetting import LearningWithoutForgetting
from handful.methods.probe import ClassMean, LogisticRegression, Neighbours
from handful.methods.supervised import Supervised
from handful.models.backbones import create
from handful.models.classifier import Classifier, build_classifier
from handful.models.heads import Centre, Chain, CosineHead, JoinedHead, Likeness, NearestMean, build_head
from handful.recipes import extend
from handful.recipes.extend import FIXED, LWF, PLAIN, Old, extended, fit_heads, read
from handful.recipes.stage import Stage
from handful.recipes.table import find
from handful.recipes.task import Task, Workshop
from handful.recipes.train import Built, train, train_network
from handful.recipes.training import Training
from handful.types import Batch, Loss, Models

SIDE, EACH, CLASSES, OLD = 8, 12, 5, 3
TRAINING = Training(
    backbone="conv-4", steps=6, batch=8, lr=0.002, ema=0.0, freeze_norms=True, weight_decay=0.01
)
METHOD = LearningWithoutForgetting(n_old=OLD, view="plain")
SAME = {"precision of dense networks": "fp32"}  # on any processor
NONE = torch.empty(0, dtype=torch.int64)


@pytest.fixture(scope="module")
def images() -> Images:
    """Five easy classes: one bright square, in a place of its own, under noise."""
    noise = np.random.Philox(key=3).random_raw(CLASSES * EACH * SIDE * SIDE).astype(np.uint64) % np.uint64(90)
    x = noise.reshape(CLASSES * EACH, SIDE, SIDE).astype(np.uint8)
    for i in range(len(x)):
        top, left = divmod(i // EACH, 3)
        x[i, top * 4 : top * 4 + 3, left * 3 : left * 3 + 2] += 140
    return from_array(x)


def task_of(images: Images, classes: range) -> Task:
    rows = torch.arange(classes.start * EACH, classes.stop * EACH)
    names = tuple(f"class {k}" for k in classes)
    return Task(images, rows, rows // EACH - classes.start, NONE, names, seed=1)


@pytest.fixture(scope="module")
def new(images: Images) -> Task:
    return task_of(images, range(OLD, CLASSES))


@pytest.fixture(scope="module")
def trained(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Old:
    """A network that knows the first three classes."""
    workshop = Workshop(
        tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("old"), save_every=0, plan=dict(SAME)
    )
    training = Training(backbone="conv-4", steps=40, batch=16)
    fitted = train_network(
        Stage("old", task_of(images, range(OLD)), Supervised(view="plain"), training), workshop
    )
    fitted.classifier.temperature.fill_(1.5)
    return Old(fitted.classifier.eval(), OLD, "old")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "cache", tmp_path / "run", save_every=2, plan=dict(SAME))


def state(classifier: Classifier) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in classifier.state_dict().items()}


def test_nothing_of_the_old_classifier_changes(trained: Old, new: Task, workshop: Workshop) -> None:
    before = state(trained.classifier)
    for responses in ("recorded", "live"):
        method = replace(METHOD, responses=responses)
        extended(trained, Stage(f"lwf {responses}", new, method, TRAINING), workshop, LWF)
    after = state(trained.classifier)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not trained.classifier.training


def test_feature_extraction_keeps_every_old_answer(trained: Old, new: Task, workshop: Workshop) -> None:
    fitted = extended(trained, Stage(FIXED, new, METHOD, TRAINING), workshop, FIXED)
    every = torch.arange(CLASSES * EACH)
    old = predict(trained.classifier.backbone, new.images, every, trained.classifier.spec)
    torch.testing.assert_close(fitted.logits(every)[:, :OLD], old.log_softmax(1), rtol=1e-5, atol=1e-5)
    assert read(fitted.logits(new.labelled), new.y + OLD, OLD).task_aware.all()


def test_the_new_head_is_warmed_up_to_convergence(trained: Old, new: Task, workshop: Workshop) -> None:
    """Its penalised loss cannot be lowered: the gradient by autograd is zero at the solution."""
    network, _ = extend.warmed_up(trained, new, workshop)
    f = extend.features(trained.classifier.backbone, new.images, new.labelled).double()
    centre, head = f.mean(0), network.head.young  # type: ignore[union-attr]
    length = float((f - centre).norm(dim=1).mean())
    weight = (head.weight.detach().double() * length).requires_grad_(True)
    bias = (head.bias.detach().double() + head.weight.detach().double() @ centre).requires_grad_(True)
    loss = F.cross_entropy((f - centre) / length @ weight.T + bias, new.y, reduction="sum")
    (loss + weight.square().sum() / (2 * LogisticRegression().C)).backward()
    assert weight.grad is not None and bias.grad is not None
    assert max(float(weight.grad.abs().max()), float(bias.grad.abs().max())) < 1e-3
    assert loss.item() < 0.5 * len(f) * np.log(2)


@dataclass(frozen=True)
class _NewHeadAlone(Objective):
    """Plain fine-tuning, written by hand: torch's own cross-entropy on the new logits."""

    views: ClassVar = {"x": "plain"}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        logits = models["student"](batch["x"]).logits
        return Loss(F.nll_loss(logits[:, OLD:].log_softmax(1), batch["y"]), {})


def test_without_weight_it_is_plain_fine_tuning_exactly(
    trained: Old, new: Task, workshop: Workshop, tmp_path: Path
) -> None:
    zero = extended(
        trained, Stage("same draws", new, replace(METHOD, lambda_old=0.0), TRAINING), workshop, LWF
    )
    network, config = extend.warmed_up(trained, new, workshop)
    network.head.old.requires_grad_(False)  # type: ignore[operator, union-attr]
    stage = Stage("same draws", new, _NewHeadAlone(), TRAINING, origin="x")
    by_hand = train(stage, workshop, lambda done: Built(network, config))
    other = tmp_path / "other"  # where no finished stage is found
    plain = extended(
        trained, Stage("same draws", new, METHOD, TRAINING), replace(workshop, folder=other), PLAIN
    )
    for fitted in (plain, by_hand):
        for name, value in state(fitted.classifier).items():
            assert torch.equal(value, state(zero.classifier)[name]), name
    old_head = trained.classifier.backbone.head.weight  # type: ignore[union-attr]
    assert torch.equal(state(zero.classifier)["backbone.head.old.weight"], old_head.detach())
    assert not torch.equal(
        state(zero.classifier)["backbone.body.0.0.weight"],
        state(trained.classifier)["backbone.body.0.0.weight"],
    )


def test_the_old_head_trains_unless_it_is_frozen(trained: Old, new: Task, workshop: Workshop) -> None:
    name, before = "backbone.head.old.weight", state(trained.classifier)["backbone.head.weight"]
    free = extended(trained, Stage(LWF, new, METHOD, TRAINING), workshop, LWF)
    fixed = extended(
        trained, Stage("frozen", new, replace(METHOD, freeze_old_head=True), TRAINING), workshop, LWF
    )
    assert not torch.equal(state(free.classifier)[name], before)
    assert torch.equal(state(fixed.classifier)[name], before)


def test_recorded_and_live_responses_agree_where_the_view_is_the_picture_itself(
    trained: Old, new: Task, workshop: Workshop
) -> None:
    live = replace(METHOD, responses="live")
    found = [
        extended(trained, Stage("same draws", new, method, TRAINING), workshop, LWF)
        for method in (METHOD, live)
    ]
    a, b = (f.logits(new.labelled) for f in found)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_it_forgets_less_than_fine_tuning(trained: Old, images: Images, workshop: Workshop) -> None:
    """The new pictures are like old ones, and their labels such that the features must change to learn them."""
    training = replace(TRAINING, steps=60, lr=0.01)
    new = replace(task_of(images, range(2)), y=torch.arange(2 * EACH) % 2)
    old_rows = torch.arange(OLD * EACH)
    before = predict(trained.classifier.backbone, images, old_rows, trained.classifier.spec).log_softmax(1)

    def drift(way: str) -> float:
        fitted = extended(trained, Stage(way, new, METHOD, training), workshop, way)
        assert torch.isfinite(fitted.logits(new.labelled)).all()
        now = fitted.logits(old_rows)[:, :OLD].log_softmax(1)
        return float(F.kl_div(now, before, log_target=True, reduction="batchmean"))

    kept, lost = drift(LWF), drift(PLAIN)
    assert lost > 0.05 and kept < 0.5 * lost, (kept, lost)


def test_a_network_with_a_cosine_head_and_one_that_was_extended_before(
    images: Images, new: Task, workshop: Workshop
) -> None:
    network = create("conv-4", n_classes=OLD, channels=1, size=SIDE, seed=4)
    network.head = CosineHead(network.dim, OLD)
    config = {"name": "conv-4", "n_classes": OLD, "channels": 1, "size": SIDE, "head": network.head.config()}
    old = Old(Classifier(network, None, config).eval(), OLD, "cosine")
    once = extended(old, Stage("once", new, METHOD, TRAINING), workshop, LWF)
    extend.calibrate(once, 1.0, extend.Heads(1.3, 20.0, 5.0))
    again = Old(once.classifier.eval(), CLASSES, "once")
    twice = extended(again, Stage("twice", new, replace(METHOD, n_old=CLASSES), TRAINING), workshop, LWF)
    every = torch.arange(len(images))
    assert twice.logits(every).shape == (len(images), CLASSES + 2)
    rebuilt = build_classifier(twice.classifier.config())
    rebuilt.load_state_dict(twice.classifier.state_dict())
    x = torch.rand(2, 1, SIDE, SIDE)
    torch.testing.assert_close(
        rebuilt.eval()(x).logits, twice.classifier.eval()(x).logits, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "method", [LogisticRegression(), ClassMean(), Neighbours(k=3)], ids=lambda m: type(m).__name__
)
def test_a_frozen_head_keeps_its_old_rows(images: Images, new: Task, workshop: Workshop, method: Any) -> None:
    fitted = find("logistic").run(
        task_of(images, range(OLD)), workshop, on="pixels", stage="probe", method=method
    )
    old = Old(fitted.classifier.eval(), OLD, "probe")
    assert not old.trains and extend.ways(old) == (FIXED,)
    more = extended(old, Stage(FIXED, new, METHOD, TRAINING), workshop, FIXED)
    every = torch.arange(len(images))
    before, after = fitted.logits(every), more.logits(every)
    assert after.shape == (len(images), CLASSES)
    if isinstance(
        method, Neighbours
    ):  # votes are shared with the new examples: only a purely old answer is equal
        assert (after[: OLD * EACH].argmax(1) == before[: OLD * EACH].argmax(1)).all()
    elif isinstance(method, ClassMean):
        torch.testing.assert_close(after[:, :OLD], before, rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(after[:, :OLD], before.log_softmax(1), rtol=1e-5, atol=1e-5)
    assert (after[new.labelled][:, OLD:].argmax(1) == new.y).all()
    x = images.take(every)
    with torch.inference_mode():
        torch.testing.assert_close(
            more.classifier.eval()(to_input(x, more.classifier.spec)).logits, after, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("method", [ClassMean(), Neighbours(k=3)], ids=lambda m: type(m).__name__)
def test_means_and_neighbours_are_as_if_all_had_been_there_from_the_start(
    images: Images, new: Task, workshop: Workshop, method: Any
) -> None:
    """With the old centre: then adding classes later and having them at once are the same."""
    fitted = find("logistic").run(
        task_of(images, range(OLD)), workshop, on="pixels", stage="probe", method=method
    )
    more = extended(
        Old(fitted.classifier.eval(), OLD, "p"), Stage("", new, METHOD, TRAINING), workshop, FIXED
    )
    assert Old(fitted.classifier, OLD, "p").comparable
    everything = task_of(images, range(CLASSES))
    raw = extend.features(fitted.classifier.backbone, images, everything.labelled)
    centre: Any = fitted.classifier.head[0]  # type: ignore[index]
    at_once = method.fit(centre(raw), everything.y, CLASSES)
    every = torch.arange(len(images))
    torch.testing.assert_close(more.logits(every), at_once(centre(raw)), rtol=1e-5, atol=1e-6)


def test_three_extensions_keep_the_order_of_a_probe(images: Images, workshop: Workshop) -> None:
    fitted = find("logistic").run(task_of(images, range(2)), workshop, on="pixels", stage="probe")
    classifier, every = fitted.classifier.eval(), torch.arange(len(images))
    answers = [fitted.logits(every)]
    for k, classes in enumerate((range(2, 4), range(3, 5), range(0, 2))):
        old = Old(classifier, 2 + 2 * k, f"{k}")
        fitted = extended(old, Stage(f"{k}", task_of(images, classes), METHOD, TRAINING), workshop, FIXED)
        classifier = fitted.classifier.eval()
        answers.append(fitted.logits(every))
        old_columns = answers[-1][:, : 2 + 2 * k].softmax(1)
        torch.testing.assert_close(old_columns, answers[-2].softmax(1), rtol=1e-4, atol=1e-5)
    assert answers[-1].shape[1] == 8


def test_heads_are_set_side_by_side_by_the_new_pictures_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (400,), generator=generator)
    new = (F.one_hot(y, 2) * 2.0 + torch.randn(400, 2, generator=generator)).log_softmax(1)
    distance = torch.rand(400, 1, generator=generator) * 20 + 5
    old = torch.randn(400, 3, generator=generator) * 2 + 4
    logits = torch.cat([old, (3 * new).log_softmax(1) - distance], 1)  # the new head is three times too sure
    heads = fit_heads(logits, y, 3, temperature_old=2.0)
    alone = fit_heads(torch.cat([old, new - distance], 1), y, 3, temperature_old=2.0)
    assert heads.temperature == pytest.approx(3 * alone.temperature, rel=0.1)  # a prior pulls towards 1
    assert heads.spread == pytest.approx(float(distance.std(correction=0)), rel=1e-5)
    joint = extend.side_by_side(logits, 3, 2.0, heads).argmax(1)
    assert int((joint < 3).sum()) == int(extend.GIVEN_UP * 400), "so many go to an old class, no more"
    less = extend.side_by_side(logits, 3, 2.0, heads._replace(limit=heads.limit - 0.1)).argmax(1)
    assert int((less < 3).sum()) > int(extend.GIVEN_UP * 400), "the limit is the smallest"


def test_one_softmax_is_a_share_for_each_side() -> None:
    """Old classes get 1 - sigmoid(likeness) in all, new ones sigmoid(likeness)."""
    old, new = torch.tensor([[2.0, 1.0, 0.5]]), torch.tensor([[0.3, -0.7]])
    heads = extend.Heads(temperature=2.0, limit=12.0, spread=4.0)
    p = extend.side_by_side(torch.cat([old, new.log_softmax(1) - 10.0], 1), 3, 0.5, heads).softmax(1)
    share = torch.sigmoid(torch.tensor((12.0 - 10.0) / 4.0))
    torch.testing.assert_close(p[:, :3], (1 - share) * (old / 0.5).softmax(1))
    torch.testing.assert_close(p[:, 3:], share * (new / 2.0).softmax(1))


def test_of_a_few_pictures_none_is_given_up() -> None:
    y = torch.tensor([0, 1, 0, 1])
    logits = torch.cat([torch.zeros(4, 1), F.one_hot(y, 2) * 5.0], 1)
    heads = fit_heads(logits, y, 1, 1.0)
    assert 0.3 < heads.temperature < 1, "the prior holds it: without a mistake the likeliest is 0"
    assert (extend.side_by_side(logits, 1, 1.0, heads).argmax(1) > 0).all(), (
        "four pictures: none may be given up"
    )


def test_calibration_moves_no_answer_within_a_head(trained: Old, new: Task, workshop: Workshop) -> None:
    fitted = extended(trained, Stage(FIXED, new, METHOD, TRAINING), workshop, FIXED)
    every = torch.arange(CLASSES * EACH)
    before = fitted.logits(every)
    heads = extend.Heads(2.0, 30.0, 7.0)
    extend.calibrate(fitted, 1.5, heads)
    after = fitted.logits(every)
    torch.testing.assert_close(after, extend.side_by_side(before, OLD, 1.5, heads), rtol=1e-3, atol=1e-3)
    assert torch.equal(after[:, :OLD].argmax(1), before[:, :OLD].argmax(1))
    assert torch.equal(after[:, OLD:].argmax(1), before[:, OLD:].argmax(1))


def test_every_way_is_tried_in_as_many_steps(trained: Old, new: Task, workshop: Workshop) -> None:
    """Cross-validation holds every picture out once; the heads that ship are those that it set."""
    done = extend.add_classes(
        trained, Stage("", new, METHOD, replace(TRAINING, steps=0, seconds=0.0)), workshop, seconds=0.0
    )
    assert list(done.attempts) == [LWF, PLAIN, FIXED] and done.n_folds == extend.FOLDS
    steps = [value for name, value in workshop.plan.items() if name.startswith("steps ")]
    assert len(steps) == 1, "the first training's steps hold for all"
    for attempt in done.attempts.values():
        assert attempt.held_out is not None and attempt.held_out.shape == (len(new.y), CLASSES)
        given_up = int((attempt.held_out.argmax(1) < OLD).sum())
        assert given_up <= int(extend.GIVEN_UP * len(new.y))
        head: Any = attempt.fitted.classifier.backbone.head
        assert float(head.likeness.limit) == pytest.approx(attempt.heads.limit)  # type: ignore[union-attr]
        assert head.temperatures.tolist() == pytest.approx([1.5, attempt.heads.temperature])  # type: ignore[union-attr]
    assert done.truth.tolist() == (new.y + OLD).tolist()


def test_a_class_of_one_picture_is_learnt_and_nothing_is_measured(
    trained: Old, new: Task, workshop: Workshop
) -> None:
    few = replace(new, labelled=new.labelled[[0, 1, EACH]], y=new.y[[0, 1, EACH]])
    done = extend.add_classes(trained, Stage("", few, METHOD, TRAINING), workshop)
    assert done.n_folds == 0 and all(a.held_out is None for a in done.attempts.values())
    z = done.attempts[LWF].fitted.logits(few.labelled)
    assert z.shape == (3, CLASSES) and torch.isfinite(z).all()


def test_both_readings() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 1.0, 2.0, 0.5]])
    old = read(logits, torch.tensor([0, 1]), 2)
    assert old.task_aware.tolist() == [True, True] and old.joint.tolist() == [True, False]
    new = read(logits, torch.tensor([2, 3]), 2)
    assert new.task_aware.tolist() == [True, False] and new.joint.tolist() == [False, False]


def test_a_stopped_training_ends_with_the_same_bits(trained: Old, new: Task, tmp_path: Path) -> None:
    """The last checkpoint of a run that was cut off at step 4 of 6 is taken up."""
    whole = Workshop(tmp_path / "cache", tmp_path / "whole", save_every=2, plan=dict(SAME))
    expected = state(extended(trained, Stage(LWF, new, METHOD, TRAINING), whole, LWF).classifier)
    cut = Workshop(tmp_path / "cache", tmp_path / "cut", save_every=2, plan=dict(SAME))

    class Stop(Exception):
        pass

    def stop(stage: str, step: int, scalars: dict[str, float]) -> None:
        if step == 5:
            raise Stop

    with pytest.raises(Stop):
        extended(trained, Stage(LWF, new, METHOD, TRAINING), replace(cut, log=stop), LWF)
    assert list((tmp_path / "cut").rglob("last.safetensors"))
    found = state(extended(trained, Stage(LWF, new, METHOD, TRAINING), cut, LWF).classifier)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_joined_head_is_its_parts_side_by_side() -> None:
    old, young = CosineHead(4, 2), NearestMean(4, 3)
    young.means.copy_(torch.randn(3, 4))
    f, y = torch.randn(9, 4), torch.arange(9) % 3
    head = JoinedHead(copy.deepcopy(old), copy.deepcopy(young))
    head.temperatures.copy_(torch.tensor([2.0, 0.5]))
    p_old, p_young = (old(f) / 2).softmax(1), (young(f) / 0.5).softmax(1)
    torch.testing.assert_close(head(f), torch.cat([p_old.log(), p_young.log()], 1))
    head.likeness = Likeness.of(f, y, 3)
    torch.testing.assert_close(head(f)[:, 2:], p_young.log() + head.likeness(f).unsqueeze(1))
    config = Chain(Centre(4), head).config()
    assert [part["kind"] for part in config["parts"][1]["parts"]] == ["cosine", "nearest-mean", "likeness"]
    rebuilt = build_head(config)
    rebuilt.load_state_dict(Chain(Centre(4), head).state_dict())
    torch.testing.assert_close(rebuilt(f), Chain(Centre(4), head)(f))


@pytest.mark.parametrize(("n", "dim"), [(60, 5), (12, 40)])
def test_likeness_is_the_mahalanobis_distance_to_the_nearest_mean(n: int, dim: int) -> None:
    """Against NumPy's inverse of the shrunk covariance, also where there are fewer pictures than features."""
    generator = torch.Generator().manual_seed(n)
    y = torch.arange(n) % 3
    x = torch.randn(n, dim, generator=generator) * torch.linspace(0.2, 3, dim) + 4 + y.unsqueeze(1)
    made = Likeness.of(x, y, 3)
    f = torch.randn(7, dim, generator=generator) * 2 + 5
    a, means = x.double().numpy(), np.stack([x[y == k].double().mean(0).numpy() for k in range(3)])
    rest = a - means[y.numpy()]
    covariance, shrink = rest.T @ rest / n, Likeness.SHRINK
    level = np.trace(covariance) / dim
    inverse = np.linalg.inv((1 - shrink) * covariance + shrink * level * np.eye(dim))
    expected = [min(float((row - m) @ inverse @ (row - m)) for m in means) for row in f.double().numpy()]
    assert (-made(f)).tolist() == pytest.approx(expected, rel=1e-3)
    made.limit.fill_(8.0)
    made.spread.fill_(2.0)
    assert made(f).tolist() == pytest.approx([(8 - d) / 2 for d in expected], rel=1e-3, abs=1e-3)
