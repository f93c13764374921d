"""A real summary to look at: scikit-learn's handwritten digits, four labels per class."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading

from handful.report.record import Audit, ConfusedPair, Problem, Reliability, Summary, Thumb, Tried
from handful.stats import calibration
from handful.stats import intervals as st


class Spreading:
    """Label spreading over the labelled and the unlabelled pictures together."""

    def __init__(self, unlabelled: np.ndarray) -> None:
        self.unlabelled = unlabelled
        self.model = LabelSpreading(kernel="knn", n_neighbors=7, alpha=0.2, max_iter=100)

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Spreading":
        nobody = np.full(len(self.unlabelled), -1)
        self.model.fit(np.concatenate([x, self.unlabelled]), np.concatenate([y, nobody]))
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a picture without a labelled neighbour: 0 / 0, say "no idea"
            return np.nan_to_num(self.model.predict_proba(x), nan=0.1)


def judged(make: Any, x: np.ndarray, y: np.ndarray, repeats: int = 3) -> np.ndarray:
    """Right or wrong of each picture in repeated 4-fold cross-validation, [repeats, n]."""
    right = np.zeros((repeats, len(y)))
    for r in range(repeats):
        for train, test in StratifiedKFold(4, shuffle=True, random_state=r).split(x, y):
            p = make().fit(x[train], y[train]).predict_proba(x[test])
            right[r, test] = p.argmax(1) == y[test]
    return right


def scaled(p: np.ndarray, temperature: float) -> np.ndarray:
    z = np.log(np.clip(p, 1e-6, 1)) / temperature
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def digits_summary() -> Summary:
    """Accuracies, intervals, confusions, bins and thumbnails are computed from the pictures.

    Made up, to fill the page: priors, seconds, learning curves, the temperature, problems and next steps.
    """
    digits = load_digits()
    x, y = digits.data / 16, digits.target
    images = (digits.images * 255 / 16).astype(np.uint8)[:, None]
    order = np.random.default_rng(0).permutation(len(y))
    test, pool = order[:449], order[449:]
    labelled = np.concatenate([pool[y[pool] == c][:4] for c in range(10)])
    unlabelled = np.setdiff1d(pool, labelled)
    names = [str(c) for c in range(10)]

    makers: dict[str, Any] = {
        "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        "1-nearest neighbour": lambda: KNeighborsClassifier(1),
        "label spreading": lambda: Spreading(x[unlabelled]),
    }
    right = {name: judged(make, x[labelled], y[labelled]) for name, make in makers.items()}
    base = right["logistic regression"]
    tried, models = [], {}
    for i, (name, make) in enumerate(makers.items()):
        models[name] = make().fit(x[labelled], y[labelled])
        cv, gain = st.accuracy(right[name]), st.paired_difference(right[name], base)
        tried.append(
            Tried(
                name,
                uses_unlabelled=name == "label spreading",
                cv_accuracy=cv.value,
                cv_interval=cv.interval,
                difference=None if i == 0 else gain.value,
                difference_interval=None if i == 0 else gain.interval,
                prior_mean=(None, -0.02, 0.06)[i],
                prior_sd=(None, 0.03, 0.04)[i],
                posterior_mean=(None, -0.01, 0.065)[i],
                posterior_sd=(None, 0.025, 0.03)[i],
                seconds=(0.21, 0.02, 1.4)[i],
                chosen=name == "label spreading",
                baseline=i == 0,
                test_accuracy=float((models[name].predict_proba(x[test]).argmax(1) == y[test]).mean()),
            )
        )
    tried.append(Tried("small convolutional network", note="not run: the time budget ended"))

    p = models["label spreading"].predict_proba(x[test])
    said, sure, truth = p.argmax(1), p.max(1), y[test]
    matrix = np.zeros((10, 10), dtype=int)
    np.add.at(matrix, (truth, said), 1)
    wrong = np.flatnonzero(said != truth)
    wrong = wrong[np.argsort(-sure[wrong])]

    def thumb(i: int) -> Thumb:
        at = test[i]
        return Thumb(images[at], f"test/{at:04d}.png", names[said[i]], names[truth[i]], float(sure[i]))

    pairs = []
    for flat in np.argsort(-(matrix * (1 - np.eye(10, dtype=int))).ravel(), kind="stable")[:3]:
        t, s = divmod(int(flat), 10)
        which = [i for i in wrong if truth[i] == t and said[i] == s]
        pairs.append(ConfusedPair(names[t], names[s], len(which), [thumb(i) for i in which[:4]]))

    raw = scaled(models["logistic regression"].predict_proba(x[test]), 0.5)
    after = scaled(raw, 1.8)
    hit = raw.argmax(1) == truth
    reliability = Reliability(
        before=[tuple(b) for b in calibration.reliability_bins(raw.max(1), hit)],
        after=[tuple(b) for b in calibration.reliability_bins(after.max(1), hit)],
        ece_before=calibration.expected_calibration_error(raw.max(1), hit),
        ece_after=calibration.expected_calibration_error(after.max(1), hit),
        temperature=1.8,
    )

    p_pool = models["label spreading"].predict_proba(x[unlabelled])
    used = p_pool.max(1) >= 0.9
    ok = p_pool.argmax(1) == y[unlabelled]
    edges = [(0.9, 0.95), (0.95, 0.99), (0.99, 1.01)]
    inside = [(lo, min(hi, 1.0), (p_pool.max(1) >= lo) & (p_pool.max(1) < hi)) for lo, hi in edges]
    called = {c: used & (p_pool.argmax(1) == int(c)) for c in names}
    audit = Audit(
        n_unlabelled=len(unlabelled),
        n_used=int(used.sum()),
        threshold=0.9,
        mean_confidence=float(p_pool.max(1)[used].mean()),
        accuracy=float(ok[used].mean()),
        interval=st.wilson(int(ok[used].sum()), int(used.sum())),
        bins=[(lo, hi, int(m.sum()), float(ok[m].mean())) for lo, hi, m in inside if m.any()],
        per_class={c: (int(m.sum()), float(ok[m].mean()) if m.any() else None) for c, m in called.items()},
    )

    steps = range(0, 401, 20)
    curves = {
        "linear": {
            "loss": [(i, 2.3 * 0.99**i + 0.05) for i in steps],
            "accuracy_labelled": [(i, 1 - 0.9 * 0.985**i) for i in steps],
            "accuracy_test": [(i, 0.83 - 0.7 * 0.98**i) for i in steps],
            "learning_rate": [(i, 0.1 * (1 - i / 400)) for i in steps],
        }
    }
    best = st.accuracy(said == truth)
    doubt = unlabelled[np.argsort(p_pool.max(1), kind="stable")[:8]]
    parts = (("labelled", labelled), ("test", test))
    return Summary(
        title="Handwritten digits",
        data_name="scikit-learn's digits (1,797 pictures of 8 × 8)",
        counts={c: {part: int((y[rows] == int(c)).sum()) for part, rows in parts} for c in names},
        n_labelled=len(labelled),
        n_unlabelled=len(unlabelled),
        n_test=len(test),
        classes=names,
        headline_accuracy=best.value,
        headline_interval=best.interval,
        measured_on="held-out test part of 449 pictures, not used for any choice",
        decision_rule="A recipe replaces the labelled-only baseline where its expected gain, from other data "
        "sets and cross-validation together, is more than one standard deviation above zero. "
        "The best such one ships.",
        tried=tried,
        curves=curves,
        confusion=matrix.tolist(),
        confusion_on="held-out test part of 449 pictures",
        confused_pairs=pairs,
        mistakes=[thumb(i) for i in wrong[:12]],
        least_sure=[
            Thumb(images[i], f"unlabelled/{i:04d}.png", names[q.argmax()], None, float(q.max()))
            for i, q in zip(doubt, models["label spreading"].predict_proba(x[doubt]))
        ],
        mean_pictures={c: Thumb(images[y == int(c)].mean(0).astype(np.uint8)) for c in names},
        reliability=reliability,
        audit=audit,
        next_steps=[
            "Label the pictures below: 8 is confused with 1 most often.",
            "Four more labels per class are expected to be worth about 2 points.",
        ],
        issues=[
            Problem(
                "unlabelled/0007.png", "is nearly the same as unlabelled/0391.png", "both were kept", "copy"
            )
        ],
        n_issues={"copy": 1},
        provenance={
            "handful": "0.1.0",
            "seed": "0",
            "precision": "float32",
            "weights": "sha256 " + "0f3a" * 16,
        },
        command="handful fit digits --recipe auto --seed 0",
    )


@pytest.fixture(scope="session")
def example() -> Summary:
    return digits_summary()
