"""handful as a scikit-learn estimator: pictures or features in an array, and -1, None or NaN where no label is known.

    from handful.sklearn import HandfulClassifier
    model = HandfulClassifier(seconds=60).fit(pictures, y)      # uint8 [n, H, W] or [n, H, W, 3]
    model.predict(new), model.predict_proba(new)

Legend: n pictures, C channels, H height, W width, S pixels a side, D features, K classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from handful import machine
from handful.api import cache_folder
from handful.choose.auto import Outcome, choose
from handful.choose.prior import prior_table
from handful.data.images import PHOTO_SIDE, from_array
from handful.inference.classify import probabilities
from handful.inference.model_file import Saved
from handful.models.heads import Centre
from handful.randomness import digest
from handful.recipes.candidate import Candidate
from handful.recipes.feature_space import Space
from handful.recipes.table import RECIPES, asked, find
from handful.recipes.task import Task, Workshop
from handful.types import UsageError

VECTORS = "vectors"  # the feature space of what the user computed already


class HandfulClassifier(ClassifierMixin, BaseEstimator):
    """The recipes of handful and their automatic choice on arrays.

    ``X`` is either pictures, uint8 [n, H, W], [n, H, W, C] or [n, C, H, W] with 1 or 3 channels, or features that were
    computed elsewhere, floats [n, D], which are compared by their direction from their mean. ``y`` holds class names or
    numbers; -1 (as a number), None and NaN mark what is unlabelled.

    Args:
        recipe: "auto", or a name of ``handful fit --recipe list``. Features take the recipes that train no network.
        features: feature space of the recipe for pictures ("lite0", "pixels", "timm:NAME"); "" takes the best guess.
        seconds: for all of ``fit``; networks share what the cheap candidates leave of it.
        side: pixels that pictures are stored at; 0 takes their shorter side, 192 at most.
        feature_backend: "auto", "torch", "onnxruntime", "openvino".
        method, training: fields of the recipe's method and of ``recipes.train.Training`` that differ.
        random_state: None, a number or a ``RandomState``: the seed of every draw. None means 0: handful is always
            reproducible.

    Attributes:
        classes_: the classes, sorted.
        chosen_: the candidate that was chosen, such as "propagation@lite0".
        accuracy_: its share of right answers in cross-validation, which is a little flattering; None where a class has
            a single label.
        n_features_in_: D, where X was features.
    """

    def __init__(
        self,
        recipe: str = "auto",
        *,
        features: str = "",
        seconds: float = 60.0,
        side: int = 0,
        feature_backend: str = "auto",
        method: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.recipe = recipe
        self.features = features
        self.seconds = seconds
        self.side = side
        self.feature_backend = feature_backend
        self.method = method
        self.training = training
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> HandfulClassifier:
        """Choose and train.

        Raises:
            ValueError: shapes or types do not fit, or there are not two classes.
            UsageError: a recipe or an option that does not exist.
        """
        if y is None:
            raise ValueError("HandfulClassifier requires y to be passed, but the target y is None")
        X = self._checked(X, learn=True)
        labels = np.asarray(y, dtype=object) if isinstance(y, (list, tuple)) else np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = np.asarray(column_or_1d(labels, warn=True))  # as scikit-learn's own estimators take it
        if labels.ndim != 1 or len(labels) != len(X):
            raise ValueError(f"y must have one label a picture: {len(X)} pictures, y of shape {labels.shape}")
        known = ~unlabelled(labels)
        self.classes_, numbers = np.unique(_discrete(labels[known]), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"there must be two classes at least; y has {len(self.classes_)} class: {self.classes_}"
            )
        seed = 0 if self.random_state is None else int(check_random_state(self.random_state).randint(2**31))
        pixels = np.zeros((len(X), 1, 1), np.uint8) if X.ndim == 2 else self._pictures(X, learn=True)
        images = from_array(pixels, fingerprint="features" if X.ndim == 2 else None)
        rows = torch.arange(len(X))
        at = torch.from_numpy(known)
        names = tuple(map(str, self.classes_))
        task = Task(images, rows[at], torch.from_numpy(numbers.astype(np.int64)), rows[~at], names, seed=seed)
        machine.set_threads()
        with tempfile.TemporaryDirectory() as folder:
            workshop = Workshop(cache_folder(), Path(folder), feature_backend=self.feature_backend)
            outcome = self._choose(task, workshop, X)
        self._keep(outcome, task)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Calibrated probabilities [n, K], in the order of ``classes_``."""
        check_is_fitted(self)
        X = self._checked(X)
        if X.ndim == 2:
            with torch.inference_mode():
                logits = self.model_(_vectors(X))
            p = (logits / self.temperature_).softmax(1)
        else:
            if not self.side_:
                raise ValueError("this model was fitted on features: X must be [n, D]")
            store = {"channels": self.channels_, "side": self.side_}
            saved = Saved(self.model_, tuple(map(str, self.classes_)), store, "")
            p = probabilities(saved, torch.from_numpy(self._pictures(X))).double()
        return np.asarray(p / p.sum(1, keepdim=True))

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each picture."""
        p = self.predict_proba(X)
        return np.asarray(self.classes_[p.argmax(1)])

    def _choose(self, task: Task, workshop: Workshop, X: NDArray[Any]) -> Outcome:
        """The automatic choice, or the one recipe that was asked for."""
        vectors, among = X.ndim == 2, list[Candidate]()
        only = asked(self.recipe, self.features, self.method, self.training)
        if vectors:
            if only and find(only.recipe).trains:
                raise UsageError(f"recipe '{self.recipe}' trains a network on pictures, and X holds features")
            only = replace(only, on=VECTORS) if only else None
            among = [Candidate(name, VECTORS) for name, row in RECIPES.items() if row.cheap]
            workshop.spaces[VECTORS, 0, digest(task.pool())] = _space(_vectors(X))
        return choose(task, workshop, seconds=self.seconds, only=only, among=among, prior=prior_table())

    def _keep(self, outcome: Outcome, task: Task) -> None:
        """What predicting needs, and what a person may ask."""
        self.chosen_, self.temperature_ = outcome.chosen, float(outcome.temperature)
        right = outcome.trials[outcome.chosen].right
        self.accuracy_ = None if right is None else float(right.mean())
        classifier = outcome.fitted.classifier
        on_pictures = task.images.side > 1
        self.model_: Any = classifier if on_pictures else classifier.head.double()  # type: ignore[union-attr]
        self.side_ = task.images.side if on_pictures else 0
        self.channels_ = task.images.channels if on_pictures else 0

    def _checked(self, X: Any, learn: bool = False) -> NDArray[Any]:
        """Features or pictures as an array of numbers. Scikit-learn counts the columns of features only."""
        if (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) > 2:
            return np.asarray(check_array(X, allow_nd=True, dtype=None, ensure_min_samples=2 if learn else 1))
        if not learn and self.side_:
            raise ValueError("this model was fitted on pictures: X must be [n, H, W] or [n, H, W, C]")
        least = 2 if learn else 1
        return np.asarray(validate_data(self, X, dtype=None, reset=learn, ensure_min_samples=least))

    def _pictures(self, X: NDArray[Any], learn: bool = False) -> NDArray[np.uint8]:
        """uint8 [n, C, S, S]: channels first, shorter side to S, middle cut out."""
        x = X[..., None] if X.ndim == 3 else X
        if x.ndim != 4:
            raise ValueError(
                f"X must be [n, D], [n, H, W], [n, H, W, C] or [n, C, H, W], not {list(X.shape)}"
            )
        if x.dtype != np.uint8:
            raise ValueError(f"pictures must be uint8 from 0 to 255, not {x.dtype}")
        if x.shape[3] not in (1, 3) and x.shape[1] in (1, 3):
            x = x.transpose(0, 2, 3, 1)
        if x.shape[3] not in (1, 3):
            raise ValueError(f"pictures must have 1 or 3 channels; X is {list(X.shape)}")
        side = (self.side or min(*x.shape[1:3], PHOTO_SIDE)) if learn else self.side_
        if side < 2:
            raise ValueError(f"pictures of {side} px a side are too small")
        if not learn and x.shape[3] != self.channels_:
            raise ValueError(
                f"the model was fitted on pictures of {self.channels_} channels, not {x.shape[3]}"
            )
        if x.shape[1:3] != (side, side):
            return np.stack([_fitted(picture, side) for picture in x])
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def _discrete(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels that are classes.

    Raises:
        ValueError: they are continuous, or of mixed types.
    """
    plain = np.array(labels.tolist()) if labels.dtype == object else labels
    if plain.dtype.kind == "f":
        check_classification_targets(plain)
    if labels.dtype == object and len({isinstance(label, str) for label in labels}) > 1:
        raise ValueError("y holds class names and numbers: use one kind")
    return plain


def unlabelled(y: NDArray[Any]) -> NDArray[np.bool_]:
    """Where y [n] says -1 (as a number), None or NaN."""
    if y.dtype.kind in "iuf":
        return np.isnan(y) | (y == -1)
    if y.dtype != object:
        return np.zeros(len(y), dtype=bool)
    marks = [
        v is None
        or (not isinstance(v, (str, bool)) and isinstance(v, (int, float, np.number)) and (v != v or v == -1))
        for v in y.tolist()
    ]
    return np.array(marks, dtype=bool)


def _fitted(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[H, W, C] to [C, side, side], as files are stored."""
    pillow = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    array = np.asarray(ImageOps.fit(pillow, (side, side), Image.Resampling.BICUBIC))
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _vectors(X: NDArray[Any]) -> Tensor:
    """Features [n, D] as float64: fit and predict see the same numbers."""
    return torch.from_numpy(np.ascontiguousarray(X, dtype=np.float64))


def _space(x: Tensor) -> Space:
    """Features [n, D] that the user brought, as recipes take them."""
    centre = Centre(x.shape[1]).double().fit(x)
    length = float((x - centre.mean).norm(dim=1).mean())
    return Space(centre(x).float(), nn.Identity(), {"name": VECTORS}, centre, False, length, {})
