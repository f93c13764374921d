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
from tests.choose.conftest import digits

import handful.choose.auto as auto
import handful.recipes.feature_space as feature_space
from handful.choose.auto import Outcome, choose
from handful.choose.evidence import Evidence, HeldOut
from handful.choose.prior import PriorTable
from handful.methods.pseudo_label import PseudoLabel
from handful.recipes.candidate import Candidate
from handful.recipes.stage import Stage
from handful.recipes.table import RECIPES, asked, candidates, find, fit_candidate
from handful.recipes.task import Validation, Workshop
from handful.types import UsageError

NOBODY = PriorTable()


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> list[Candidate]:
    """The candidates that need no training, on pixels."""
    found = [Candidate(name, "pixels") for name, row in RECIPES.items() if row.cheap]
    monkeypatch.setattr(auto, "candidates", lambda task: list(found))
    return found


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
    assert set(outcome.trials) == {c.key for c in cheap}
    assert outcome.n_folds == 4
    for trial in outcome.trials.values():
        assert trial.right is not None and trial.right.shape == (5, 18)
        assert set(np.unique(trial.right)) <= {0.0, 1.0}
        assert trial.logits is not None and torch.equal(trial.truth, task.y)
        assert np.array_equal(trial.right[0], (trial.logits.argmax(1) == task.y).numpy())


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
    bad = {c.key: 0.5 for c in cheap} | {"propagation@pixels": 0.1, "knn@pixels": 0.6}
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
    rows = {c.key: 0.5 for c in cheap} | {"propagation@pixels": 1.0}
    outcome = choose(task, bench(), prior=PriorTable({(n, "small", 4): rows for n in ("one", "two")}))
    left_out = outcome.trials["propagation@pixels"]
    assert left_out.note == "not tried: there are no unlabelled pictures"
    assert left_out.right is None
    assert outcome.verdict is not None
    assert "propagation@pixels" not in outcome.verdict.beliefs
    assert outcome.chosen in {c.key for c in cheap} - {"propagation@pixels"}


@pytest.mark.parametrize("name", [name for name, row in RECIPES.items() if row.uses_unlabelled])
def test_a_recipe_that_needs_unlabelled_pictures_says_so(name: str, bench: Callable[..., Workshop]) -> None:
    task, _, _ = digits(unlabelled=0)
    with pytest.raises(UsageError, match="unlabelled pictures, and there are none") as caught:
        choose(task, bench(), only=Candidate(name, ""), prior=NOBODY)
    assert "unlabeled/" in caught.value.fix


def test_a_validation_part_is_used_instead_of_cross_validation(
    cheap: Any, bench: Callable[..., Workshop]
) -> None:
    task, rows, y = digits(per_class=1)
    outcome = choose(task, bench(), validation=Validation(rows, y), prior=NOBODY)
    assert outcome.n_folds == 1
    for key, trial in outcome.trials.items():
        name, on = key.split("@")
        alone = fit_candidate(Candidate(name, on), task, bench()).logits(rows)
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
        only=Candidate("supervised", "pixels", training=few),
        prior=NOBODY,
    )
    assert calls == ["supervised"]
    trial = outcome.trials["supervised@pixels"]
    assert trial.logits is not None and torch.equal(outcome.fitted.logits(rows), trial.logits)


def test_the_temperature_fits_the_held_out_logits(cheap: Any, bench: Callable[..., Workshop]) -> None:
    """No temperature beside it gives a smaller sum of cross-entropy and prior (sd of log T: 0.5); the classifier's own
    logits are divided by it."""
    task, held, _ = digits(classes=10)
    outcome = choose(task, bench(), prior=NOBODY, only=Candidate("nearest-mean", "pixels"))
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
    outcome = choose(task, bench(), prior=NOBODY, only=Candidate("nearest-mean", "pixels"))
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
    few = [Candidate(name, "pixels") for name in ("logistic", "supervised")]
    monkeypatch.setattr(auto, "candidates", lambda task: few)
    rows = {"logistic@pixels": 0.9, "supervised@pixels": 0.3}
    outcome = choose(digits()[0], bench(), prior=PriorTable({(n, "small", 4): rows for n in ("one", "two")}))
    assert outcome.trials["supervised@pixels"].note.startswith("not tried: by prior")
    assert outcome.chosen == "logistic@pixels"


def test_the_time_is_shared_out_over_folds_and_the_last_training(
    bench: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks in four folds each and one training at the end: nine shares of 85 % of 90 seconds, less what
    the cheap candidates took (here next to nothing)."""
    few = [Candidate(name, "pixels") for name in ("logistic", "supervised", "pseudo-label")]
    monkeypatch.setattr(auto, "candidates", lambda task: few)
    given: list[float] = []

    def spy(self: HeldOut, candidate: Candidate, *_: Any, seconds: float, **more: Any) -> Evidence:
        if find(candidate.recipe).trains:
            given.append(seconds)
        return Evidence(np.ones((1, 12)), torch.zeros(12, 3), torch.zeros(12, dtype=torch.int64))

    monkeypatch.setattr(HeldOut, "measure", spy)
    choose(digits()[0], bench(), seconds=90, prior=NOBODY)
    assert given[0] == given[1] == pytest.approx(8.5, abs=0.3)


def test_a_recipes_own_settings_survive_other_options(
    bench: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = find("pseudo-label").make(smoothing=0.1)
    assert taught == PseudoLabel(threshold=0.0, smoothing=0.1)
    assert find("pseudo-label-self").make(threshold=0.8) == PseudoLabel(threshold=0.8, ramp_steps=200)
    task, _, _ = digits()
    seen: list[Stage] = []
    for name in ("fine-tune", "logistic"):
        row = replace(find(name), algorithm=lambda stage, workshop: seen.append(stage))
        monkeypatch.setitem(RECIPES, name, row)
    fit_candidate(Candidate("fine-tune", "lite0", training={"batch": 32}), task, bench(), seconds=7)
    fit_candidate(Candidate("logistic", "pixels"), task, bench(), seconds=7)
    training = seen[0].training
    assert (training.batch, training.backbone, training.freeze_norms) == (32, "lite0", True)
    assert (training.seconds, seen[0].name, seen[0].on) == (7, "fine-tune", "lite0")
    assert seen[1].method == find("logistic").make()


def test_unknown_fields_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'threshold'"):
        find("pseudo-label").make(thresold=1)
    with pytest.raises(UsageError, match="did you mean 'steps'"):
        asked("supervised", "pixels", {}, {"step": 1})
    with pytest.raises(UsageError, match="did you mean 'propagation'"):
        find("propagaton")


def test_candidates_name_recipes_that_exist() -> None:
    task, _, _ = digits()
    for candidate in candidates(task):
        assert candidate.recipe in RECIPES
        assert candidate.on in ("pixels", "lite0")
        assert not (candidate.recipe.startswith("fine-tune") and candidate.on == "pixels")
    assert find("fine-tune").space(task) == "lite0"
    assert find("logistic").space(task) == "pixels"
