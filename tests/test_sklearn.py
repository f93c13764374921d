"""The scikit-learn estimator: its library's own checks, the marks of what is unlabelled, pictures of every shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from handful.sklearn import HandfulClassifier, unlabelled
from handful.types import UsageError

EXPECTED = {
    "check_classifiers_classes": "it takes -1 for a class, and -1 is the mark of what is unlabelled, as in "
    "scikit-learn's own semi-supervised estimators",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@parametrize_with_checks([HandfulClassifier("logistic")], expected_failed_checks=lambda _: EXPECTED)
@pytest.mark.filterwarnings("ignore")  # of the checks, which feed strange data on purpose
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def digits(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 8, 8] and classes."""
    x, y = load_digits(return_X_y=True)
    return np.round(x[:n] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8), y[:n]


def few_labels(y: np.ndarray, per_class: int) -> np.ndarray:
    """-1 for all but the first ``per_class`` of each class."""
    kept = np.concatenate([np.flatnonzero(y == k)[:per_class] for k in np.unique(y)])
    out = np.full_like(y, -1)
    out[kept] = y[kept]
    return out


def test_the_marks_of_what_is_unlabelled() -> None:
    assert unlabelled(np.array([0, -1, 2])).tolist() == [False, True, False]
    assert unlabelled(np.array([0.0, np.nan, -1.0])).tolist() == [False, True, True]
    assert unlabelled(np.array(["a", "-1", ""])).tolist() == [False, False, False]
    mixed = np.array(["a", None, float("nan"), -1, np.int64(-1), True, "-1"], dtype=object)
    assert unlabelled(mixed).tolist() == [False, True, True, True, True, False, False]


@pytest.mark.parametrize("mark", [-1, None, float("nan")])
def test_every_mark_gives_the_same_model(mark: object) -> None:
    x, y = digits(150)
    sparse = few_labels(y, 3)
    names = [mark if k == -1 else f"digit {k}" for k in sparse]
    model = HandfulClassifier("propagation", features="pixels").fit(x, names)
    plain = HandfulClassifier("propagation", features="pixels").fit(x, sparse)
    assert model.classes_.tolist() == [f"digit {k}" for k in range(10)] and plain.classes_.tolist() == list(
        range(10)
    )
    np.testing.assert_array_equal(model.predict_proba(x), plain.predict_proba(x))


def test_unlabelled_pictures_help_on_digits() -> None:
    """4 labels a class of 900 digits: propagation is right more often than regression on the labels alone."""
    x, y = digits(900)
    sparse = few_labels(y, 4)
    score = {}
    for recipe in ("logistic", "propagation"):
        model = HandfulClassifier(recipe, features="pixels").fit(x, sparse)
        assert model.chosen_ == f"{recipe}@pixels" and 0 < model.accuracy_ < 1
        score[recipe] = model.score(x[sparse == -1], y[sparse == -1])
    assert score["propagation"] > score["logistic"] + 0.03


def test_every_layout_of_the_same_pictures_is_the_same() -> None:
    x, y = digits(120)
    colour = np.repeat(x[:, :, :, None], 3, axis=3)
    model = HandfulClassifier("logistic", features="pixels")
    p = model.fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(clone(model).fit(x[..., None], y).predict_proba(x[:, None]), p)
    q = clone(model).fit(colour, y).predict_proba(colour)
    np.testing.assert_array_equal(clone(model).fit(colour.transpose(0, 3, 1, 2), y).predict_proba(colour), q)
    assert p.shape == (120, 10) and np.allclose(p.sum(1), 1)


def test_oblong_pictures_are_cut_to_their_middle() -> None:
    x, y = digits(100)
    wide = np.pad(x, ((0, 0), (0, 0), (3, 3)))
    model = HandfulClassifier("logistic", features="pixels").fit(x, y)
    np.testing.assert_array_equal(model.predict_proba(wide), model.predict_proba(x))


def test_the_automatic_choice_on_features_and_in_a_pipeline() -> None:
    x, truth = make_blobs(200, centers=3, n_features=6, random_state=0)
    y = few_labels(truth, 5)
    model = HandfulClassifier().fit(x, y)
    assert model.chosen_.endswith("@vectors")
    assert model.score(x, truth) > 0.95
    again = HandfulClassifier(random_state=0).fit(x, y)
    assert again.chosen_ == model.chosen_
    pipe = make_pipeline(StandardScaler(), HandfulClassifier("nearest-mean"))
    assert cross_val_score(pipe, x, truth, cv=3).mean() > 0.95


def test_what_does_not_fit_is_said() -> None:
    x, y = digits(40)
    model = HandfulClassifier("logistic", features="pixels").fit(x, y)
    features = x.reshape(40, -1).astype(float)
    cases = [
        (lambda: HandfulClassifier().fit(x.astype(float), y), "must be uint8"),
        (lambda: HandfulClassifier().fit(x, y[:-1]), "one label a picture"),
        (lambda: HandfulClassifier().fit(x, np.zeros(40, dtype=int)), "two classes"),
        (lambda: HandfulClassifier().fit(x, ["a", 1] * 20), "one kind"),
        (lambda: HandfulClassifier().fit(np.zeros((40, 8, 8, 2), np.uint8), y), "1 or 3 channels"),
        (lambda: model.predict(features), "fitted on pictures"),
        (lambda: model.predict(np.repeat(x[..., None], 3, 3)), "1 channels, not 3"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
    for options, words in (
        ({"recipe": "logistik"}, "did you mean"),
        ({"method": {"C": 1.0}}, "recipe of their own"),
        (
            {"recipe": "logistic", "training": {"steps": 1}},
            "trains no network: training options mean nothing",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            HandfulClassifier(**options).fit(features, y)
    with pytest.raises(UsageError, match="trains a network"):
        HandfulClassifier("fine-tune").fit(features, y)


def test_fitting_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = digits(60)
    HandfulClassifier("logistic", features="pixels").fit(x, y)
    assert list(tmp_path.iterdir()) == []
