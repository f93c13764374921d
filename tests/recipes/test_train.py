"""The training stage: layer groups, rates, head first, frozen statistics, heads, and stages that run once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import handful.recipes.train as train
from handful.augment.views import to_input
from handful.data.images import Images, from_array
from handful.engine.norms import find_norms
from handful.engine.state import TrainingState
from handful.inference.logits import predict
from handful.inference.model_file import load_model, save_model
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.supervised import Supervised
from handful.methods.uda import UDA
from handful.models.backbones import create, layer_groups
from handful.models.classifier import Classifier
from handful.randomness import digest
from handful.recipes.feature_space import PHOTO_INPUT, space
from handful.recipes.stage import Stage
from handful.recipes.table import find
from handful.recipes.task import Task, Workshop
from handful.recipes.train import train_network
from handful.recipes.training import Training, tuning
from handful.types import UsageError

Parameters = list[list[Tensor]]


def gray(n: int = 24, side: int = 8) -> tuple[Images, Tensor]:
    """Three classes: a bright band at the top, in the middle or at the bottom, under noise."""
    rng = np.random.Generator(np.random.Philox(key=3))
    x = rng.integers(0, 90, (n, side, side), dtype=np.uint8)
    y = np.arange(n) % 3
    for i, k in enumerate(y):
        x[i, k * side // 3 : k * side // 3 + 3] += 130
    return from_array(x), torch.from_numpy(y)


def small_task(labels: int = 12) -> Task:
    images, y = gray()
    return Task(images, torch.arange(labels), y[:labels], torch.arange(labels, 24), ("low", "mid", "top"))


def colour_task(n: int = 24, side: int = 64, labels: int = 12) -> Task:
    """Two classes of photograph size: reddish with stripes across, bluish with stripes down."""
    rng = np.random.Generator(np.random.Philox(key=5))
    x = rng.integers(0, 120, (n, 3, side, side), dtype=np.uint8)
    y = np.arange(n) % 2
    x[y == 0, 0, ::8] += 130
    x[y == 1, 2, :, ::8] += 130
    classes = torch.from_numpy(y)
    return Task(
        from_array(x), torch.arange(labels), classes[:labels], torch.arange(labels, n), ("red", "blue")
    )


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "cache", tmp_path / "run", feature_backend="torch-eager-fp32")


QUICK = Training(backbone="conv-4", steps=4, batch=6, ema=0, size=0)


def copies(network: nn.Module) -> Parameters:
    return [[p.detach().clone() for p in group] for group in layer_groups(network)]


def keep_start(kept: list[Parameters]) -> Callable[[nn.Module], None]:
    """For ``start``: remembers the first weights."""
    return lambda network: kept.append(copies(network))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_groups_sleep_bit_for_bit_until_their_step(optimizer: str, steps: int, workshop: Workshop) -> None:
    """With two steps a group, group r from the head takes its first step at 2 r."""
    kept: list[Parameters] = []
    training = replace(QUICK, optimizer=optimizer, lr=0.01, unfreeze_every=2, steps=steps, warmup=0)
    fitted = train_network(Stage("s", small_task(), Supervised(), training, start=keep_start(kept)), workshop)
    before, after = kept[0], copies(fitted.classifier.backbone)
    assert len(before) == 5, "four blocks and the head"
    for rank, (old, new) in enumerate(zip(reversed(before), reversed(after))):
        moved = [not torch.equal(a, b) for a, b in zip(old, new)]
        assert any(moved) if 2 * rank < steps else not any(moved), f"group {rank} of {steps} steps"


def test_a_sleeping_group_stays_in_the_moving_average_too(workshop: Workshop) -> None:
    kept: list[Parameters] = []
    training = replace(QUICK, unfreeze_every=100, ema=0.9)
    fitted = train_network(Stage("s", small_task(), Supervised(), training, start=keep_start(kept)), workshop)
    for old, new in zip(kept[0][:-1], copies(fitted.classifier.backbone)[:-1]):
        assert all(torch.equal(a, b) for a, b in zip(old, new))
    assert not torch.equal(kept[0][-1][0], copies(fitted.classifier.backbone)[-1][0])


def test_each_group_towards_the_input_has_its_rate_divided_by_2_6(
    workshop: Workshop, caught: list[TrainingState]
) -> None:
    training = replace(QUICK, decay_by_depth=2.6, lr=0.1, weight_decay=0.01, steps=1, warmup=0)
    train_network(Stage("s", small_task(), Supervised(), training), workshop)
    optimizer, network = caught[0].optimizers["student"], caught[0].models["student"]
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(rate) == len(list(network.parameters())), "every parameter once"
    assert rate[id(network.head.weight)] == pytest.approx(0.1)
    for rank, group in zip((4, 3, 2, 1, 0), layer_groups(network), strict=True):
        assert [rate[id(p)] for p in group] == pytest.approx([0.1 / 2.6**rank] * len(group))
    assert all(decay[id(p)] == (0.01 if p.dim() > 1 else 0) for p in network.parameters())


def test_one_step_of_sgd_by_hand(workshop: Workshop) -> None:
    """Linear network on plain pictures, all of them in the batch: W - lr (1 + momentum) * gradient."""
    task, kept = small_task(), []
    workshop.plan["precision of dense networks"] = "fp32"
    training = Training(backbone="linear", steps=1, batch=12, ema=0, warmup=0, lr=0.1, weight_decay=0.0)
    method = Supervised(view="plain")
    fitted = train_network(Stage("s", task, method, training, start=keep_start(kept)), workshop)
    weight, bias = kept[0][-1]
    x = (task.images.take(task.labelled).double().flatten(1) / 255 - 0.5) / 0.5
    p = (x @ weight.double().T + bias.double()).softmax(1)
    error = (p - torch.nn.functional.one_hot(task.y, 3)) / 12
    expected = weight.double() - 0.1 * 1.9 * error.T @ x
    torch.testing.assert_close(fitted.classifier.backbone.head.weight.double(), expected, rtol=0, atol=1e-6)


def norms(network: nn.Module) -> dict[str, Tensor]:
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {k: v.clone() for k, v in network.state_dict().items() if k.endswith(names)}


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_frozen_statistics_stay_bit_for_bit(
    ema: float, workshop: Workshop, caught: list[TrainingState], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the calibration of the steps and after an evaluation in the middle of training."""
    kept: list[dict[str, Tensor]] = []
    fit = train.fit
    task = small_task()

    def with_evaluation(state: TrainingState, *arguments: Any, **options: Any) -> None:
        def evaluate(step: int, scalars: dict[str, float]) -> None:
            network = state.models["student"]
            predict(network, task.images, task.labelled, network.spec)
            modes.append({m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d)})
            log(step, scalars)

        modes: list[set[bool]] = []
        log = options.pop("log")
        fit(state, *arguments, **options, log=evaluate)
        assert modes and all(mode == {False} for mode in modes)
        assert state.models["student"].training, "only the norms are frozen"

    monkeypatch.setattr(train, "fit", with_evaluation)
    training = replace(QUICK, steps=0, seconds=1e-9, max_steps=6, freeze_norms=True, ema=ema)

    def start(network: nn.Module) -> None:  # statistics that differ from the fresh ones
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.25)
        kept.append(norms(network))

    fitted = train_network(Stage("s", task, Supervised(), training, start=start), workshop)
    after = norms(fitted.classifier.backbone)
    assert len(after) == 12, "four norms with three buffers"
    assert all(torch.equal(after[name], kept[0][name]) for name in after)
    assert workshop.plan["steps of s"] == 6


def test_statistics_that_are_not_frozen_move(workshop: Workshop) -> None:
    kept: list[dict[str, Tensor]] = []
    fitted = train_network(
        Stage("s", small_task(), Supervised(), QUICK, start=lambda net: kept.append(norms(net))), workshop
    )
    after = norms(fitted.classifier.backbone)
    assert not any(torch.equal(after[name], kept[0][name]) for name in after)


def test_running_statistics_are_those_of_the_steps(workshop: Workshop) -> None:
    training = replace(QUICK, precise_norms=False)
    fitted = train_network(Stage("s", small_task(), Supervised(), training), workshop)
    after = norms(fitted.classifier.backbone)
    assert {int(v) for k, v in after.items() if k.endswith("tracked")} == {4}, "calibration leaves no trace"


@pytest.mark.parametrize("method", [Supervised(), UDA()], ids=["labelled", "unlabelled"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_precise_statistics_are_those_of_the_plain_pictures_that_it_learns_from(
    workshop: Workshop, method: Any, ema: float
) -> None:
    """The first norm's are the mean and variance of its convolution's output over these very pictures."""
    task = small_task(labels=10)
    task = replace(task, unlabelled=torch.arange(10, 20))  # the last four are nobody's
    fitted = train_network(Stage("s", task, method, replace(QUICK, ema=ema)), workshop)
    learnt = task.labelled if isinstance(method, Supervised) else torch.arange(20)
    network: Any = fitted.classifier.backbone
    convolution = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    norm = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        z = convolution(to_input(task.images.take(learnt), network.spec)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, z.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, z.var(1), rtol=1e-4, atol=1e-5)


def test_one_picture_leaves_the_statistics_alone() -> None:
    network = create("conv-4", n_classes=2, channels=1, size=8)
    before = norms(network)
    find_norms(network, gray()[0], torch.tensor([5]), "cpu")
    after = norms(network)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_time_becomes_steps_once_and_the_plan_is_obeyed(workshop: Workshop, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    workshop.log = lambda stage, step, scalars: seen.append((stage, step))
    training = replace(QUICK, steps=0, seconds=1e-9)
    train_network(Stage("s/0.1", small_task(), Supervised(), training), workshop)
    assert workshop.plan["steps in a fold of s"] == train.MIN_STEPS
    assert seen[-1] == ("s/0.1", train.MIN_STEPS)
    other = Workshop(tmp_path, tmp_path / "other", log=workshop.log, plan={"steps in a fold of s": 3})
    train_network(Stage("s/0.2", small_task(), Supervised(), training), other)
    assert seen[-1] == ("s/0.2", 3)
    assert other.plan["steps in a fold of s"] == 3
    train_network(Stage("s", small_task(), Supervised(), training), other)
    assert other.plan["steps of s"] == train.MIN_STEPS, "what ships may train longer than a fold"


def test_calibration_changes_no_bit(workshop: Workshop, tmp_path: Path) -> None:
    """Steps from the clock or from the caller: the same number gives the same weights."""
    timed = replace(QUICK, steps=0, seconds=1e-9, max_steps=7, optimizer="adamw", ema=0.9)
    a = train_network(Stage("s", small_task(), Supervised(), timed), workshop).classifier
    other = Workshop(tmp_path, tmp_path / "other")
    b = train_network(Stage("s", small_task(), Supervised(), replace(timed, steps=7)), other).classifier
    assert all(torch.equal(a.state_dict()[k], v) for k, v in b.state_dict().items())


def test_a_stage_that_is_done_is_not_run_again(workshop: Workshop, caught: list[TrainingState]) -> None:
    task, rows = small_task(), torch.arange(24)
    first = train_network(Stage("s", task, Supervised(), QUICK), workshop)
    again = train_network(
        Stage("s", task, Supervised(), QUICK, start=lambda net: pytest.fail("started")), workshop
    )
    assert len(caught) == 1
    assert torch.equal(first.logits(rows), again.logits(rows))
    changed = [
        (task, Supervised(smoothing=0.1), QUICK),
        (task, Supervised(), replace(QUICK, lr=0.04)),
        (replace(task, seed=1), Supervised(), QUICK),
        (replace(task, y=task.y.flip(0)), Supervised(), QUICK),
        (task.without(torch.arange(12) == 3), Supervised(), QUICK),
    ]
    for n, (other, method, training) in enumerate(changed, start=2):
        train_network(Stage("s", other, method, training), workshop)
        assert len(caught) == n, "another input is another stage"
    train_network(Stage("t", task, Supervised(), QUICK), workshop)
    assert len(caught) == len(changed) + 2


def test_another_teacher_is_another_stage(workshop: Workshop, caught: list[TrainingState]) -> None:
    task = small_task()
    for k in (0, 1):
        teacher = torch.nn.functional.one_hot(torch.full((12,), k), 3).float()
        train_network(Stage("s", task, PseudoLabel(threshold=0), QUICK, tables={"target": teacher}), workshop)
    assert len(caught) == 2


def test_the_teachers_answers_arrive_with_their_pictures(workshop: Workshop) -> None:
    """A network that sees no label of class 2 but a teacher that says nothing else learns to say it."""
    task = small_task()
    task = replace(task, labelled=task.labelled[task.y == 0], y=task.y[task.y == 0])
    truth = gray()[1][12:]
    teacher = torch.nn.functional.one_hot(truth, 3).float()
    training = Training(backbone="linear", steps=60, batch=4, ratio=6, lr=0.05, ema=0)
    method = PseudoLabel(threshold=0, view="plain", unlabelled_view="plain")
    fitted = train_network(Stage("s", task, method, training, tables={"target": teacher}), workshop)
    assert torch.equal(fitted.logits(task.unlabelled).argmax(1), truth)


def test_methods_that_need_unlabelled_pictures_say_so(workshop: Workshop) -> None:
    task = replace(small_task(), unlabelled=torch.empty(0, dtype=torch.int64))
    with pytest.raises(UsageError, match="unlabelled pictures, and there are none"):
        train_network(Stage("s", task, PseudoLabel(), QUICK), workshop)


@pytest.mark.parametrize("wrong", [{"optimizer": "sdg"}, {"head": "cosinus"}, {"batch": 0}, {"steps": -1}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Training(**wrong)


def test_a_view_that_does_not_exist(workshop: Workshop) -> None:
    with pytest.raises(UsageError, match="no view 'stong'"):
        train_network(Stage("s", small_task(), Supervised(view="stong"), QUICK), workshop)


def test_torch_compile_is_used_only_when_asked_for(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caught: list[TrainingState]
) -> None:
    """With the "eager" backend, compiling changes no bit, neither of weights nor of buffers."""
    calls: list[nn.Module] = []
    real = torch.compile

    def counted(network: nn.Module) -> Any:
        calls.append(network)
        return real(network, backend="eager")

    monkeypatch.setattr(torch, "compile", counted)
    training = replace(QUICK, steps=2, ema=0.9)
    plain = train_network(Stage("s", small_task(), Supervised(), training), workshop).classifier
    assert calls == []
    workshop.compile, workshop.folder = True, workshop.folder / "compiled"
    compiled = train_network(Stage("s", small_task(), Supervised(), training), workshop).classifier
    assert len(calls) == 1
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    assert all(torch.equal(compiled.state_dict()[k], v) for k, v in plain.state_dict().items())


def test_a_cosine_head_survives_export(workshop: Workshop, tmp_path: Path) -> None:
    task = small_task()
    fitted = train_network(Stage("s", task, Supervised(), replace(QUICK, head="cosine")), workshop)
    backbone: Any = fitted.classifier.backbone
    features = backbone.eval()(torch.zeros(2, 1, 8, 8)).features
    weight, scale = backbone.head.weight, backbone.head.scale
    save_model(tmp_path / "saved", fitted.classifier, task.classes, 1, 8)
    saved = load_model(tmp_path / "saved")
    loaded: Any = saved.classifier.backbone
    by_hand = (
        scale
        * (features / features.norm(dim=1, keepdim=True))
        @ (weight / weight.norm(dim=1, keepdim=True)).T
    )
    with torch.no_grad():
        torch.testing.assert_close(loaded(torch.zeros(2, 1, 8, 8)).logits, by_hand, rtol=1e-4, atol=1e-5)
    logits = predict(saved.classifier, task.images, torch.arange(24), saved.classifier.spec)
    torch.testing.assert_close(logits, fitted.logits(torch.arange(24)), rtol=0, atol=1e-5)


TINY = replace(tuning("lite0"), size=64, steps=2, batch=4)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Workshop]:
    """A task whose lite0 features (at 64 px) are made once."""
    folder = tmp_path_factory.mktemp("colours")
    task, workshop = (
        colour_task(),
        Workshop(folder / "cache", folder / "run", feature_backend="torch-eager-fp32"),
    )
    space(task, workshop, "lite0", 64)
    return task, workshop


def first_weights(
    task: Task, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, training: Training
) -> tuple[nn.Module, Any]:
    """The network of ``fine_tune`` before its first step."""
    found: list[nn.Module] = []

    def run(stage: Stage, workshop: Workshop, network: nn.Module, folder: Path) -> dict[str, nn.Module]:
        found.append(network)
        return {"result": network}

    monkeypatch.setattr(train, "run", run)
    fitted = find("fine-tune").run(task, workshop, on="lite0", training=training, stage="fine-tune")
    return found[0], fitted


def test_head_first_starts_close_to_the_probe(
    colours: tuple[Task, Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is W (f - m) / L + b with one length L for all; the probe divides by each picture's own."""
    task, workshop = colours
    network, fitted = first_weights(task, workshop, monkeypatch, TINY)
    features = space(task, workshop, "lite0", 64)
    rows = task.pool()
    start = fitted.logits(rows)
    solved = find("logistic").run(
        task,
        Workshop(
            workshop.cache, workshop.folder, spaces={("lite0", PHOTO_INPUT, digest(task.pool())): features}
        ),
        on="lite0",
        stage="probe",
    )
    target = solved.logits(rows)
    assert torch.equal(start.argmax(1), target.argmax(1))
    a, b = start[:, 0] - start[:, 1], target[:, 0] - target[:, 1]
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.97
    assert 0.8 < float(a.std() / b.std()) < 1.25
    # exact for each picture with its mirror image, where each picture's own length is put back
    raw = features.backbone.eval()
    with torch.no_grad():
        f = raw(train_input(task, rows, raw.spec)).features
        mirrored = raw(train_input(task, rows, raw.spec).flip(3)).features
    both = (f + mirrored) / 2
    own = (both - features.centre.mean).norm(dim=1)
    bias = solved.classifier.head[1].bias.detach()  # type: ignore[index]
    with torch.no_grad():
        logits = network.head(both)  # type: ignore[operator]
    expected = (target - bias) * own.unsqueeze(1) / own.mean() + bias
    torch.testing.assert_close(logits, expected, rtol=0, atol=5e-3)
    assert float(own.mean()) == pytest.approx(features.length, rel=1e-3)


def train_input(task: Task, rows: Tensor, spec: Any) -> Tensor:
    x = task.images.take(rows).float() / 255
    return (x - torch.tensor(spec.mean).view(1, 3, 1, 1)) / torch.tensor(spec.std).view(1, 3, 1, 1)


def test_a_cosine_head_starts_from_imprinted_means(
    colours: tuple[Task, Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row points to the mean of its class's features (those of pictures and mirror images, at one length)."""
    task, workshop = colours
    network, _ = first_weights(task, workshop, monkeypatch, replace(TINY, head="cosine"))
    weight: Tensor = network.head.weight.detach()  # type: ignore[union-attr, assignment]
    body = create("lite0", pretrained=True, size=64).eval()
    x = train_input(task, task.labelled, body.spec)
    with torch.no_grad():
        raw = (body(x).features + body(x.flip(3)).features) / 2
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(2))
    for k in range(2):
        mean = raw[task.y == k].mean(0)
        assert torch.cosine_similarity(weight[k], mean, dim=0) > 0.99


def test_fine_tuning_lite0_keeps_statistics_and_moves_weights(colours: tuple[Task, Workshop]) -> None:
    task, workshop = colours
    fresh = create("lite0", n_classes=2, pretrained=True, size=64)
    # at the default rate the stem's steps (3e-4 / 2.6^9) can drown in float32 rounding
    fitted = find("fine-tune").run(
        task, workshop, on="lite0", training=replace(TINY, lr=3e-3), stage="fine-tune"
    )
    before, after = norms(fresh), norms(fitted.classifier.backbone)
    assert len(after) == 147, "49 norms with three buffers"
    assert all(torch.equal(after[name], before[name]) for name in after)
    moved = [
        not torch.equal(p, q) for p, q in zip(fresh.parameters(), fitted.classifier.backbone.parameters())
    ]
    assert all(moved)
    assert isinstance(fitted.classifier, Classifier) and fitted.classifier.head is None


@pytest.mark.parametrize(("on", "training"), [("pixels", None), ("lite0", tuning("conv-4"))])
def test_what_cannot_be_fine_tuned_is_refused(on: str, training: Training | None, workshop: Workshop) -> None:
    with pytest.raises(UsageError, match="pretrained"):
        find("fine-tune").run(small_task(), workshop, on=on, training=training, stage="fine-tune")


def test_fields_of_label_propagation_that_are_not_given_follow_the_pictures() -> None:
    """Photographs have other defaults (docs/methods/label-propagation.md): a changed field must not undo them."""
    recipe = find("propagation")
    photo, digits = (recipe.method_for(task, {"neighbours": 5}) for task in (colour_task(), small_task()))
    assert (photo.neighbours, photo.alpha, photo.iterations, photo.share) == (5, 0.9, 20, 0.5)
    assert (digits.neighbours, digits.alpha, digits.iterations, digits.share) == (5, 0.95, 30, 0.0)
