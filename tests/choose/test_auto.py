"""The automatic choice on small digits: what it may see, what it repeats, what it leaves out and what it plans."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

import handful.choose.auto as auto
import handful.recipes.feature_space as feature_space
from handful.choose.auto import Outcome, choose, recipe_options
from handful.choose.rule import PriorTable
from handful.data.images import from_array
from handful.methods.pseudo_label import PseudoLabel
from handful.recipes.stage import Stage
from handful.recipes.table import RECIPES, candidates, find, usual_space
from handful.recipes.task import Fitted, Task, Validation, Workshop
from handful.types import UsageError

NOBODY = PriorTable()


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


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The candidates that need no training, on pixels."""
    pairs = [(name, "pixels") for name, row in RECIPES.items() if row.cheap]
    monkeypatch.setattr(auto, "candidates", lambda task: list(pairs))
    return pairs


def sha(outcome: Outcome) -> str:
    digest = hashlib.sha256()
    for name, value in outcome.fitted.classifier.state_dict().items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def test_a_planned_feature_backend_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run asks for what it had, not for what is quickest now."""
    asked: list[str] = []

    def noted(*arguments: Any, backend: str, **options: Any) -> Any:
        asked.append(backend)
        return torch.rand(len(arguments[1]), 8), backend

    monkeypatch.setattr(feature_space, "extract", noted)
    plan = {"feature backend of lite0": "torch-eager-fp32"}
    feature_space.space(digits()[0], Workshop(tmp_path, tmp_path, plan=plan), "lite0")
    feature_space.space(digits()[0], Workshop(tmp_path, tmp_path), "lite0")
    assert asked == ["torch-eager-fp32", "auto"]


def test_the_same_seed_gives_the_same_choice_and_weights(cheap: Any, bench: Callable[..., Workshop]) -> None:
    task, held, _ = digits(classes=5)
    one, other = (choose(task, bench(), prior=NOBODY) for _ in range(2))
    assert (one.chosen, sha(one)) == (other.chosen, sha(other))
    assert torch.equal(one.probabilities(held), other.probabilities(held))
    for key, trial in one.trials.items():
        assert np.array_equal(trial.right, other.trials[key].right)
    another = choose(replace(task, seed=1), bench(), prior=NOBODY)
    assert all(not torch.equal(t.logits, another.trials[k].logits) for k, t in one.trials.items()), (
        "other folds"
    )


def test_every_candidate_is_measured_on_every_labelled_picture(
    cheap: Any, bench: Callable[..., Workshop]
) -> None:
    task, _, _ = digits(per_class=6)
    outcome = choose(task, bench(), prior=NOBODY)
    assert set(outcome.trials) == {f"{name}@pixels" for name, _ in cheap}
    assert outcome.n_folds == 4
    for trial in outcome.trials.values():
        assert trial.right is not None and trial.right.shape == (5, 18)
        assert set(np.unique(trial.right)) <= {0.0, 1.0}
        assert trial.logits is not None and torch.equal(trial.truth, task.y)
        assert np.array_equal(trial.right[0], (trial.logits.argmax(1) == task.y).numpy())


def test_a_held_out_label_cannot_be_seen(cheap: Any, bench: Callable[..., Workshop]) -> None:
    """Recipes never get a task that holds a label of the fold that they are measured on."""
    task, _, _ = digits()
    seen: list[tuple[Task, Tensor]] = []

    def spy(stage: Stage, workshop: Workshop) -> Fitted:
        def logits(rows: Tensor) -> Tensor:
            seen.append((stage.task, rows))
            return torch.zeros(len(rows), stage.task.n_classes)

        return replace(find("logistic").algorithm(stage, workshop), logits=logits)

    row = replace(find("logistic"), algorithm=spy)
    trial = auto.Trial("logistic", "pixels", row)
    auto._measure(trial, "spy@pixels", task, bench(), None, 4, 2, {})
    assert len(seen) == 8
    for given, rows in seen:
        assert not set(rows.tolist()) & set(given.labelled.tolist())
        assert set(rows.tolist()) == set(given.held_out.tolist())
        assert len(given.labelled) == len(given.y) == 12 - len(rows)
        truth = dict(zip(task.labelled.tolist(), task.y.tolist()))
        assert [truth[r] for r in given.labelled.tolist()] == given.y.tolist()
    for repeat in (seen[:4], seen[4:]):
        assert sorted(r for _, rows in repeat for r in rows.tolist()) == sorted(task.labelled.tolist())


@pytest.mark.parametrize(("left", "repeats"), [(1e9, 5), (0.0, 1)])
def test_the_time_that_is_left_limits_the_repeats_but_not_the_first(
    left: float, repeats: int, bench: Callable[..., Workshop]
) -> None:
    """A resumed run obeys what was planned, whatever time it has."""
    task, _, _ = digits()
    trial = auto.Trial("logistic", "pixels", find("logistic"))
    first = bench()
    auto._measure(trial, "it", task, first, None, 4, 5, {}, lambda: left)
    assert trial.right is not None and trial.right.shape == (repeats, 12)
    assert first.plan == {"repeats of it": repeats}
    again = auto.Trial("logistic", "pixels", find("logistic"))
    auto._measure(again, "it", task, bench(plan={"repeats of it": 3}), None, 4, 5, {}, lambda: left)
    assert (
        again.right is not None and (again.right[:repeats] == trial.right[:3]).all() and len(again.right) == 3
    )


def test_a_single_label_in_a_class_leaves_nothing_to_measure_on(
    cheap: Any, bench: Callable[..., Workshop]
) -> None:
    task, _, _ = digits(per_class=1)
    outcome = choose(task, bench(), prior=NOBODY)
    assert outcome.chosen == "logistic@pixels", "nothing is known: the first labelled-only candidate"
    assert {t.note for t in outcome.trials.values()} == {"not measured: a class has a single label"}
    assert all(t.right is None for t in outcome.trials.values())
    assert outcome.temperature == 1


@pytest.mark.parametrize("per_class", [1, 2, 3])
def test_below_four_labels_the_prior_alone_decides(
    per_class: int, cheap: Any, bench: Callable[..., Workshop]
) -> None:
    task, _, _ = digits(per_class=per_class)
    bad = {f"{name}@pixels": 0.5 for name, _ in cheap} | {"propagation@pixels": 0.1, "knn@pixels": 0.6}
    prior = PriorTable({(name, "small", 2): bad for name in ("one", "two")})
    outcome = choose(task, bench(), prior=prior)
    assert outcome.chosen == "knn@pixels"
    assert outcome.verdict is not None
    assert outcome.verdict.beliefs == outcome.verdict.priors
    assert (outcome.trials["knn@pixels"].right is not None) == (per_class > 1)
    good = PriorTable({(name, "small", 2): bad | {"propagation@pixels": 0.7} for name in ("one", "two")})
    assert choose(task, bench(), prior=good).chosen == "propagation@pixels"


def test_from_four_labels_on_evidence_counts(cheap: Any, bench: Callable[..., Workshop]) -> None:
    outcome = choose(digits(per_class=4)[0], bench(), prior=NOBODY)
    assert outcome.verdict is not None
    assert outcome.verdict.beliefs["propagation@pixels"].sd < outcome.verdict.priors["propagation@pixels"].sd


def test_without_unlabelled_pictures_their_users_are_left_out(
    cheap: Any, bench: Callable[..., Workshop]
) -> None:
    """Even a prior that would ship one of them."""
    task, _, _ = digits(unlabelled=0)
    rows = {f"{name}@pixels": 0.5 for name, _ in cheap} | {"propagation@pixels": 1.0}
    outcome = choose(task, bench(), prior=PriorTable({(n, "small", 4): rows for n in ("one", "two")}))
    left_out = outcome.trials["propagation@pixels"]
    assert left_out.note == "not tried: there are no unlabelled pictures"
    assert left_out.right is None
    assert outcome.verdict is not None
    assert "propagation@pixels" not in outcome.verdict.beliefs
    assert outcome.chosen in {f"{name}@pixels" for name, _ in cheap} - {"propagation@pixels"}


@pytest.mark.parametrize("name", [name for name, row in RECIPES.items() if row.uses_unlabelled])
def test_a_recipe_that_needs_unlabelled_pictures_says_so(name: str, bench: Callable[..., Workshop]) -> None:
    task, _, _ = digits(unlabelled=0)
    with pytest.raises(UsageError, match="unlabelled pictures, and there are none") as caught:
        choose(task, bench(), only=(name, usual_space(name, task)), prior=NOBODY)
    assert "unlabeled/" in caught.value.fix


def test_a_validation_part_is_used_instead_of_cross_validation(
    cheap: Any, bench: Callable[..., Workshop]
) -> None:
    task, rows, y = digits(per_class=1)
    outcome = choose(task, bench(), validation=Validation(rows, y), prior=NOBODY)
    assert outcome.n_folds == 1
    for key, trial in outcome.trials.items():
        name, on = key.split("@")
        alone = find(name).run(task, bench(), on=on, stage=name).logits(rows)
        assert trial.right is not None
        assert np.array_equal(trial.right, (alone.argmax(1) == y).numpy()[None].astype(float))
        assert torch.equal(trial.truth, y)
    assert outcome.verdict is not None
    assert outcome.verdict.beliefs["propagation@pixels"] != outcome.verdict.priors["propagation@pixels"]


def test_a_network_measured_on_the_validation_part_is_not_trained_twice(
    bench: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    import handful.recipes.train as train

    task, rows, y = digits()
    calls: list[str] = []
    fit = train.fit
    monkeypatch.setattr(train, "fit", lambda state, *a, **k: (calls.append(state.stage), fit(state, *a, **k)))
    few = {"steps": 2, "backbone": "linear"}
    outcome = choose(
        task,
        bench(),
        validation=Validation(rows, y),
        only=("supervised", "pixels"),
        training=few,
        prior=NOBODY,
    )
    assert calls == ["supervised"]
    trial = outcome.trials["supervised@pixels"]
    assert trial.logits is not None and torch.equal(outcome.fitted.logits(rows), trial.logits)


def test_the_temperature_fits_the_held_out_logits(cheap: Any, bench: Callable[..., Workshop]) -> None:
    """No temperature beside it gives a smaller sum of cross-entropy and prior (sd of log T: 0.5); the classifier's own
    logits are divided by it."""
    task, held, _ = digits(classes=10)
    outcome = choose(task, bench(), prior=NOBODY, only=("nearest-mean", "pixels"))
    trial, t = outcome.trials["nearest-mean@pixels"], outcome.temperature
    assert trial.logits is not None and trial.truth is not None
    assert (trial.logits.argmax(1) != trial.truth).any()
    z = trial.logits.double()

    def loss(temperature: float) -> float:
        likelihood = torch.nn.functional.cross_entropy(z / temperature, trial.truth, reduction="sum")
        return float(likelihood) + 2 * math.log(temperature) ** 2

    assert loss(t) <= min(loss(1.0), loss(t * 1.02), loss(t / 1.02))
    assert float(outcome.fitted.classifier.temperature) == pytest.approx(t)
    x = (task.images.take(held).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        direct = outcome.fitted.classifier.eval()(x).logits.softmax(1)
    torch.testing.assert_close(outcome.probabilities(held), direct, rtol=0, atol=1e-5)


def test_a_dozen_right_answers_do_not_make_a_model_certain(
    cheap: Any, bench: Callable[..., Workshop]
) -> None:
    """No error among the held-out pictures: the likeliest temperature is 0, which says "100 %" to everything."""
    task, held, _ = digits()
    outcome = choose(task, bench(), prior=NOBODY, only=("nearest-mean", "pixels"))
    right = outcome.trials["nearest-mean@pixels"].right
    assert right is not None and right[0].all()
    assert outcome.temperature > 0.4
    assert outcome.probabilities(held).amax(1).min() < 0.99


def test_measurements_of_a_killed_run_are_taken_up(cheap: Any, bench: Callable[..., Workshop]) -> None:
    task, _, _ = digits()
    workshop = bench()
    first = choose(task, workshop, prior=NOBODY)
    calls: list[str] = []
    again = replace(workshop, spaces={}, progress=lambda what, done, total: calls.append(what))
    second = choose(task, again, prior=NOBODY)
    assert calls == [], "nothing is measured again"
    assert (first.chosen, sha(first)) == (second.chosen, sha(second))


def test_a_costly_candidate_without_hope_is_not_tried(
    bench: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [("logistic", "pixels"), ("supervised", "pixels")]
    monkeypatch.setattr(auto, "candidates", lambda task: pairs)
    rows = {"logistic@pixels": 0.9, "supervised@pixels": 0.3}
    outcome = choose(digits()[0], bench(), prior=PriorTable({(n, "small", 4): rows for n in ("one", "two")}))
    assert outcome.trials["supervised@pixels"].note.startswith("not tried: by prior")
    assert outcome.chosen == "logistic@pixels"


def test_the_time_is_shared_out_over_folds_and_the_last_training(
    bench: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks in four folds each and one training at the end: nine shares of 85 % of 90 seconds, less what
    the cheap candidates took (here next to nothing)."""
    pairs = [("logistic", "pixels"), ("supervised", "pixels"), ("pseudo-label", "pixels")]
    monkeypatch.setattr(auto, "candidates", lambda task: pairs)
    given: list[float] = []

    def spy(trial: Any, key: str, *arguments: Any) -> None:
        options = arguments[-2]
        if "training" in options:
            given.append(options["training"].seconds)
        trial.right = np.ones((1, 12))

    monkeypatch.setattr(auto, "_measure", spy)
    monkeypatch.setattr(auto, "_line", lambda trial, key: key)
    choose(digits()[0], bench(), seconds=90, prior=NOBODY)
    assert given[0] == given[1] == pytest.approx(8.5, abs=0.3)


def test_a_recipes_own_settings_survive_other_options() -> None:
    taught = find("pseudo-label").make(smoothing=0.1)
    assert taught == PseudoLabel(threshold=0.0, smoothing=0.1)
    assert find("pseudo-label-self").make(threshold=0.8) == PseudoLabel(threshold=0.8, ramp_steps=200)
    task, _, _ = digits()
    training = recipe_options(task, "fine-tune", "lite0", {"batch": 32})["training"]
    assert (training.batch, training.backbone, training.freeze_norms) == (32, "lite0", True)
    assert recipe_options(task, "logistic", "pixels", {}) == {}


def test_unknown_fields_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'threshold'"):
        find("pseudo-label").make(thresold=1)
    with pytest.raises(UsageError, match="did you mean 'steps'"):
        recipe_options(digits()[0], "supervised", "pixels", {"step": 1})
    with pytest.raises(UsageError, match="did you mean 'propagation'"):
        find("propagaton")


def test_candidates_name_recipes_that_exist() -> None:
    task, _, _ = digits()
    for name, on in candidates(task):
        assert name in RECIPES
        assert on in ("pixels", "lite0")
        assert not (name.startswith("fine-tune") and on == "pixels")
    assert usual_space("fine-tune", task) == "lite0"
    assert usual_space("logistic", task) == "pixels"
