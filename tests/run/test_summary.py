"""From an outcome to the figures of the report, against counts by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from handful.choose.auto import Outcome, Trial
from handful.choose.evidence import Belief
from handful.choose.rule import RULE, Verdict
from handful.data.images import from_array
from handful.data.manifest import Issue, Manifest
from handful.models.classifier import Classifier
from handful.models.small import Linear
from handful.recipes.candidate import Candidate
from handful.recipes.task import Fitted, Task, Validation
from handful.report.page import render
from handful.report.page import write as write_page
from handful.report.record import Recorder, Summary
from handful.run.file import RunFile
from handful.run.pictures import Pictures
from handful.run.summary import GALLERY, summarise
from handful.study.pseudo_labels import PseudoLabels
from handful.verbs.fit import FitOptions
from handful.verbs.fit_result import Studies, as_result

CLASSES = ("cat", "dog", "fox")
N_LABELLED, N_UNLABELLED, N_TEST = 36, 20, 10
LABELLED = torch.arange(N_LABELLED)
UNLABELLED = torch.arange(N_LABELLED, N_LABELLED + N_UNLABELLED)
TEST = torch.arange(N_LABELLED + N_UNLABELLED, N_LABELLED + N_UNLABELLED + N_TEST)
Y = LABELLED % 3
TEST_Y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
GUESSES = torch.tensor([0, 0, 1, 1, 1, 1, 2, 2, 2, 0])  # 6 right; cat for dog twice, dog for fox, fox for cat
SURE = torch.tensor([0.9, 0.8, 0.6, 0.7, 0.5, 0.9, 0.8, 0.9, 0.9, 0.95])


def peaked(guess: Tensor, p: Tensor) -> Tensor:
    """Logits whose softmax has ``p`` at ``guess`` and shares the rest equally."""
    rest = (1 - p) / 2
    out = rest.log().unsqueeze(1).repeat(1, 3)
    return out.scatter(1, guess.unsqueeze(1), p.log().unsqueeze(1))


def table(temperature: float) -> Tensor:
    """Logits of every picture by row number; divided by ``temperature`` the test part has SURE."""
    out = torch.zeros(N_LABELLED + N_UNLABELLED + N_TEST, 3)
    out[TEST] = peaked(GUESSES, SURE) * temperature
    # margins shrink with the number; the class goes round
    margin = torch.linspace(0.6, 0.40, N_UNLABELLED)
    out[UNLABELLED] = peaked(torch.arange(N_UNLABELLED) % 3, margin) * temperature
    return out


def held_out() -> tuple[Tensor, np.ndarray]:
    """Logits [36, 3] of the labelled pictures, always with 0.9 at the guess; every third one is wrong (12 of 36)."""
    wrong = (LABELLED // 3) % 3 == 2
    guess = torch.where(wrong, (Y + 1) % 3, Y)
    return peaked(guess, torch.full((N_LABELLED,), 0.9)), (~wrong).double().numpy()


def outcome(temperature: float = 1.0, **changes: Any) -> Outcome:
    logits, right = held_out()
    user, base = (
        Trial(Candidate("propagation", "pixels")),
        Trial(Candidate("logistic", "pixels")),
    )
    user.right, user.logits, user.truth, user.seconds = np.stack([right] * 5), logits, Y, 1.5
    worse = right.copy()
    worse[:6] = 0
    base.right, base.seconds = np.stack([worse] * 5), 0.5
    left_out = Trial(Candidate("fine-tune-pseudo", "lite0"), note="not tried: too dear")
    known = {"propagation@pixels": Belief(0.05, 0.03), "logistic@pixels": Belief(0.0, 1e-6)}
    beliefs = {**known, "propagation@pixels": Belief(0.1, 0.02)}
    values = table(temperature)
    fitted = Fitted(Classifier(Linear(3, 1, 8), None, {}), lambda rows: values[rows])
    fields: dict[str, Any] = {
        "fitted": fitted,
        "chosen": "propagation@pixels",
        "trials": {"propagation@pixels": user, "logistic@pixels": base, "fine-tune-pseudo@lite0": left_out},
        "verdict": Verdict("propagation@pixels", "logistic@pixels", beliefs, known),
        "n_folds": 4,
        "temperature": temperature,
    }
    return Outcome(**{**fields, **changes})


def task(unlabelled: Tensor = UNLABELLED) -> Task:
    n = N_LABELLED + N_UNLABELLED + N_TEST
    pixels = np.zeros((n, 1, 8, 8), dtype=np.uint8)
    pixels[:N_LABELLED] = (
        (10 * Y + torch.arange(N_LABELLED) // 3).numpy()[:, None, None, None].astype(np.uint8)
    )
    return Task(from_array(pixels, [f"p{i}.png" for i in range(n)]), LABELLED, Y, unlabelled, CLASSES)


def manifest(of: Task, test: Tensor) -> Manifest:
    """The pictures that ``task`` makes, where ``test`` are the test part."""
    n = len(of.images)
    labels, splits = np.full(n, -1), np.full(n, "unlabelled", dtype="<U10")
    for rows, y, split in ((of.labelled, of.y, "labelled"), (test, TEST_Y[: len(test)], "test")):
        labels[rows.numpy()], splits[rows.numpy()] = y.numpy(), split
    return Manifest(Path("animals"), CLASSES, of.images.names, labels, splits, "", "animals")


def summary(
    folder: Path,
    found: Outcome | None = None,
    *,
    validation: Validation | None = None,
    test: Tensor = TEST,
    pseudo: PseudoLabels | None = None,
) -> Summary:
    run_file = RunFile(folder / "run", "", FitOptions(seed=7), data="animals", command="handful fit animals")
    run_file.plan["steps of supervised"] = 40
    with Recorder(run_file.folder / "metrics.jsonl") as recorder:
        recorder.write("supervised", 1, {"loss": 2.0})
        recorder.write("supervised/0.1", 1, {"loss": 3.0})
    issues = [Issue("cat/broken.png", "is empty", "remove it", "unreadable")]
    pictures = Pictures(manifest(task(), test), task(), validation, test, issues)
    result = as_result(found or outcome(), pictures.task, Studies(pseudo=pseudo))
    return summarise(run_file, pictures, result, "0f" * 32)


def by_hand(correct: float, n: int) -> tuple[float, float]:
    """Wilson's interval from the quadratic (p - q)^2 = z^2 q (1 - q) / n: its two roots in q."""
    p, z2 = correct / n, 1.959963984540054**2
    roots = np.roots([1 + z2 / n, -(2 * p + z2 / n), p * p])
    return float(min(roots)), float(max(roots))


def test_the_headline_is_measured_on_the_test_part(tmp_path: Path) -> None:
    found = summary(tmp_path)
    assert found.headline_accuracy == pytest.approx(0.6)
    assert found.headline_interval == pytest.approx(by_hand(6, 10))
    assert found.measured_on.startswith("a test part of 10 pictures")
    assert (found.n_labelled, found.n_unlabelled, found.n_validation, found.n_test) == (36, 20, 0, 10)
    assert found.title == "animals: 3 classes from 36 labels"


def test_confusion_pairs_and_mistakes(tmp_path: Path) -> None:
    found = summary(tmp_path)
    assert found.confusion == [[2, 2, 0], [0, 2, 1], [1, 0, 2]]
    assert found.confusion_on == "the test part"
    assert found.balanced_accuracy == pytest.approx((2 / 4 + 2 / 3 + 2 / 3) / 3)
    assert found.macro_f1 == pytest.approx((4 / 7 + 4 / 7 + 4 / 6) / 3)
    assert [(p.truth, p.predicted, p.n) for p in found.confused_pairs] == [
        ("cat", "dog", 2),
        ("dog", "fox", 1),
        ("fox", "cat", 1),
    ]
    first = int(TEST[0])
    assert [t.caption for t in found.confused_pairs[0].thumbs] == [f"p{first + 2}.png", f"p{first + 3}.png"]
    assert [t.caption for t in found.mistakes] == [f"p{first + i}.png" for i in (9, 6, 3, 2)], "surest first"
    assert [t.confidence for t in found.mistakes] == pytest.approx([0.95, 0.8, 0.7, 0.6])
    assert (found.mistakes[0].label, found.mistakes[0].truth) == ("cat", "fox")


def test_probabilities_are_divided_by_the_temperature(tmp_path: Path) -> None:
    """The same softmax after a temperature of 3 over logits that are three times as large."""
    plain, scaled = summary(tmp_path), summary(tmp_path, outcome(3.0))
    assert [t.confidence for t in scaled.mistakes] == pytest.approx([t.confidence for t in plain.mistakes])
    assert scaled.confusion == plain.confusion


def test_what_was_tried_with_intervals(tmp_path: Path) -> None:
    found = summary(tmp_path)
    user, base, left_out = found.tried
    assert user.name == "label propagation (pixels)"
    assert (user.chosen, user.baseline, user.uses_unlabelled) == (True, False, True)
    assert (base.chosen, base.baseline, base.uses_unlabelled) == (False, True, False)
    assert user.cv_accuracy == pytest.approx(24 / 36)
    assert user.cv_interval == pytest.approx(by_hand(24, 36)), "five repeats are still 36 pictures"
    assert base.cv_accuracy == pytest.approx(18 / 36)
    assert user.difference == pytest.approx(6 / 36)
    half = 2.0301079 * math.sqrt(6 / 36 * 30 / 36 * 36 / 35 / 36)  # t(35) at 97.5 %; variance of 6 ones in 36
    assert user.difference_interval == pytest.approx((6 / 36 - half, 6 / 36 + half), abs=1e-6)
    assert base.difference is None
    assert (user.prior_mean, user.prior_sd, user.posterior_mean, user.posterior_sd) == (0.05, 0.03, 0.1, 0.02)
    assert (base.prior_mean, base.posterior_mean) == (None, None)
    assert user.test_accuracy == pytest.approx(0.6)
    assert base.test_accuracy is None, "the test part is looked at for the chosen one only"
    assert (left_out.note, left_out.cv_accuracy, left_out.prior_mean) == ("not tried: too dear", None, None)
    assert found.decision_rule == RULE


def test_repeats_in_common_are_compared(tmp_path: Path) -> None:
    found = outcome()
    user, base = found.trials["propagation@pixels"], found.trials["logistic@pixels"]
    user.right = user.right[:1]
    base.right[1:] = 1.0
    assert summary(tmp_path, found).tried[0].difference == pytest.approx(6 / 36)


def test_reliability_before_and_after(tmp_path: Path) -> None:
    """Of 36 at a confidence of 0.9, 24 are right; temperature T makes it 0.9^(1/T) / (0.9^(1/T) + 2 * 0.05^(1/T))."""
    t = 2.5
    found = summary(tmp_path, outcome(t)).reliability
    assert found is not None
    after = 0.9 ** (1 / t) / (0.9 ** (1 / t) + 2 * 0.05 ** (1 / t))
    assert found["before"] == [pytest.approx((0.9, 24 / 36, 36))]
    assert found["after"] == [pytest.approx((after, 24 / 36, 36))]
    assert found["ece_before"] == pytest.approx(0.9 - 24 / 36, abs=1e-6)
    assert found["ece_after"] == pytest.approx(abs(after - 24 / 36), abs=1e-6)
    assert found["temperature"] == t


def test_too_few_held_out_pictures_give_no_reliability(tmp_path: Path) -> None:
    found = outcome()
    trial = found.trials[found.chosen]
    trial.logits, trial.truth = trial.logits[:29], trial.truth[:29]
    assert summary(tmp_path, found).reliability is None


def test_rounds_of_a_chain_on_held_out_pictures(tmp_path: Path) -> None:
    found = outcome()
    trial = found.trials[found.chosen]
    guess = Y.clone()
    guess[:9] = (Y[:9] + 1) % 3  # the teacher: 27 of 36 right, and sure of the last 30
    sure = torch.where(torch.arange(N_LABELLED) < 6, 0.4, 0.8)
    better = Y.clone()
    better[:3] = (Y[:3] + 1) % 3
    trial.rounds = {"teacher": peaked(guess, sure), "student 1": peaked(better, torch.full((36,), 0.9))}
    pseudo = PseudoLabels(torch.full((N_UNLABELLED, 3), 1 / 3), 0.5, None, None, "")
    made = summary(tmp_path, found, pseudo=pseudo)
    teacher, student = made.rounds
    assert (teacher["name"], teacher["n"], teacher["sure"], teacher["gain"]) == ("teacher", 36, 30, None)
    assert teacher["right"] == pytest.approx(27 / 36) and teacher["interval"] == pytest.approx(
        by_hand(27, 36)
    )
    assert teacher["sure_right"] == pytest.approx(27 / 30)
    assert student["right"] == pytest.approx(33 / 36) and student["gain"] is not None
    assert student["gain"][0] == pytest.approx(6 / 36) and student["gain"][1] > 0
    assert Summary.from_json(made.to_json()).rounds == made.rounds
    page = render(made)
    assert "Round by round" in page and "30 of 36" in page and "ships" in page
    assert "Round by round" not in render(summary(tmp_path))


def test_without_a_test_part_the_cross_validation_speaks(tmp_path: Path) -> None:
    none = torch.empty(0, dtype=torch.int64)
    found = summary(tmp_path, test=none)
    assert found.headline_accuracy == pytest.approx(24 / 36)
    assert found.headline_interval == pytest.approx(by_hand(24, 36))
    assert "4-fold cross-validation on the 36 labelled pictures" in found.measured_on
    assert "flattering" in found.measured_on
    assert found.confusion == [[8, 4, 0], [0, 8, 4], [4, 0, 8]]
    assert found.confusion_on == "held-out labelled pictures"
    assert found.tried[0].test_accuracy is None
    low, high = by_hand(80, 100)
    assert any(f"measured as {100 * low:.0f} to {100 * high:.0f} %" in step for step in found.next_steps)


def test_on_a_validation_part(tmp_path: Path) -> None:
    none = torch.empty(0, dtype=torch.int64)
    found = summary(tmp_path, validation=Validation(LABELLED, Y), test=none)
    assert found.n_validation == 36
    assert found.measured_on.startswith("36 validation pictures")


def test_nothing_measured(tmp_path: Path) -> None:
    none = torch.empty(0, dtype=torch.int64)
    unknown = outcome()
    for trial in unknown.trials.values():
        trial.right = trial.logits = trial.truth = None
    found = summary(tmp_path, unknown, test=none)
    assert (found.headline_accuracy, found.headline_interval, found.confusion) == (None, None, None)
    assert found.measured_on.startswith("nothing")


def test_the_least_sure_come_first_and_no_class_takes_more_than_its_share(tmp_path: Path) -> None:
    """Margins shrink with the row number; the classes go round; 12 places for 3 classes are 4 each."""
    found = summary(tmp_path).least_sure
    names = [t.caption for t in found]
    assert len(names) == GALLERY == 12
    assert names == [f"p{int(UNLABELLED[-1]) - i}.png" for i in range(12)]
    assert all([t.label for t in found].count(name) == 4 for name in CLASSES)
    assert all(t.truth is None for t in found)


def test_mean_pictures_and_provenance(tmp_path: Path) -> None:
    """Class k holds pictures of 10 k + 0 … 11: a mean of 10 k + 5.5, rounded to even."""
    found = summary(tmp_path)
    assert {name: set(t.image.flatten().tolist()) for name, t in found.mean_pictures.items()} == {
        "cat": {6},
        "dog": {16},
        "fox": {26},
    }
    assert [tuple(p)[:4] for p in found.issues] == [("cat/broken.png", "is empty", "remove it", "unreadable")]
    assert found.n_issues == {"unreadable": 1}
    assert found.counts["cat"] == {"labelled": 12, "test": 4}
    assert found.provenance["SHA-256 of the weights"] == "0f" * 32
    assert (found.provenance["seed"], found.provenance["steps of supervised"]) == ("7", "40")
    assert list(found.curves) == ["supervised"], "the folds' curves are not drawn"


def test_it_can_be_saved_and_drawn(tmp_path: Path) -> None:
    found = summary(tmp_path)
    found.save(tmp_path / "summary.json")
    assert Summary.load(tmp_path / "summary.json").confusion == found.confusion
    write_page(found, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "60" in page and "label propagation" in page
    assert "http://" not in page.replace("http://www.w3.org/", "") and "https://" not in page
