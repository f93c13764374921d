"""What is wrong with the unlabelled pictures: some are like no labelled class, or the classes come differently often.

Legend: n labelled and m unlabelled pictures, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from handful.choose.auto import Outcome
from handful.data.manifest import Issue
from handful.randomness import permutation
from handful.recipes.feature_space import GRAPH_LIMIT, Space
from handful.recipes.table import spaces_for
from handful.recipes.task import Task, Workshop

NEIGHBOURS = 10  # pictures of the pool over which likeness is averaged
APART = 2.3  # between the means of two kinds of pictures, in sums of their standard deviations
MOST = 0.6  # share of the pool that may be strange
FEWEST_LABELS = 4  # of the rarest class, under which likeness to the labelled pictures tells too little
# Labels of the rarest class under which mistakes look like other shares (benchmarks/results/screening.json)
FEWEST_FOR_SHARES = 16
WHERE = "unlabelled pictures"
MISMATCH = 0.15  # share of pictures in another class than the labels' frequencies say, from which it is told


@dataclass(frozen=True)
class Screening:
    """What was found.

    Attributes:
        likeness: of each unlabelled picture to the labelled ones, float32 [m]; larger is more alike.
        strange: bool [m], pictures that are unlike every labelled class.
        frequency: estimated share of each class among the others, float64 [K]; that of the labelled pictures where
            there are too few of those to estimate it.
        labelled: share of each class among the labelled pictures, float64 [K].
        space: whose features told.
    """

    likeness: Tensor
    strange: Tensor
    frequency: Tensor
    labelled: Tensor
    space: str

    @property
    def mismatch(self) -> float:
        """Total variation between the two frequencies, 0 to 1: the share of pictures in another class."""
        return float((self.frequency - self.labelled).abs().sum() / 2)

    def overall(self, classes: tuple[str, ...]) -> list[Issue]:
        """What the user should know of the unlabelled pictures as a whole; nothing where all is well."""
        found = []
        if bool(self.strange.any()):
            count = f"{int(self.strange.sum())} of {len(self.strange)}"
            reason = f"{count} are like no labelled class, by the features of {self.space}"
            fix = "take out those that show something else, or label some of them as a class of their own"
            found.append(Issue(WHERE, reason, fix, "strange"))
        if self.mismatch > MISMATCH:
            off = (self.frequency - self.labelled).abs().argsort(descending=True)[:3].tolist()
            words = ", ".join(
                f"{classes[k]} {100 * self.frequency[k]:.0f} % (labelled {100 * self.labelled[k]:.0f} %)"
                for k in off
            )
            reason = f"the classes seem to come in other shares than among the labels: {words}"
            fix = "methods that align the two may hurt here: --method.no-align, and not adamatch"
            found.append(Issue(WHERE, reason, fix, "shares"))
        return found

    def issues(self, task: Task) -> list[Issue]:
        """For the list of issues: other shares, and every strange picture by name, the least alike first."""
        overall = self.overall(task.classes)
        found = [issue for issue in overall if issue.kind != "strange"]
        if len(found) < len(overall):
            rows = torch.nonzero(self.strange).flatten()
            for i in rows[self.likeness[rows].argsort()].tolist():
                name = task.images.names[int(task.unlabelled[i])]
                found.append(
                    Issue(name, "is like no labelled class", "look at it; take it out or label it", "strange")
                )
        return found


def screen(labelled: Tensor, y: Tensor, unlabelled: Tensor, p: Tensor, space: str) -> Screening:
    """Look at the unlabelled pictures.

    Args:
        labelled: raw features [n, D], not centred, with classes ``y`` int64 [n].
        unlabelled: raw features [m, D].
        p: calibrated class probabilities [m, K] of a classifier that was trained on the labelled pictures.
        space: whose features these are.
    """
    like = likeness(F.normalize(labelled, dim=1), F.normalize(unlabelled, dim=1))
    counts = torch.bincount(y, minlength=p.shape[1])
    rarest, share = int(counts.min()), counts.double() / len(y)
    strange = lower_kind(like) if rarest >= FEWEST_LABELS else torch.zeros(len(like), dtype=torch.bool)
    frequency = class_frequencies(p[~strange], share) if rarest >= FEWEST_FOR_SHARES else share
    return Screening(like, strange, frequency, share, space)


def likeness(
    labelled: Tensor,
    unlabelled: Tensor,
    neighbours: int = NEIGHBOURS,
    chunk: int = 2048,
    most: int = GRAPH_LIMIT,
) -> Tensor:
    """Cosine with the nearest labelled picture, averaged over each picture's nearest neighbours in the pool: [m].

    A picture of a class may look like none of the few labelled ones, but its neighbours do; pictures of something
    else have only each other. Neighbours are sought among ``most`` pictures, a sample of a larger pool.
    """
    own = torch.cat([(part @ labelled.T).amax(1) for part in unlabelled.split(chunk)])
    some = torch.from_numpy(permutation(len(unlabelled), "likeness")[:most].copy())
    pool = unlabelled[some]
    k = min(neighbours + 1, len(pool))  # a picture of the pool is its own first neighbour
    near = torch.cat([(part @ pool.T).topk(k, dim=1).indices for part in unlabelled.split(chunk)])
    return own[some[near]].mean(1)


def lower_kind(values: Tensor) -> Tensor:
    """bool [m]: members of the lower of two kinds, where there are two: a mixture of two normal distributions by
    expectation maximisation, with means at least ``APART`` times the sum of their standard deviations apart; all
    False where they are nearer, or the lower kind is more than ``MOST`` of all."""
    from sklearn.mixture import GaussianMixture

    x = values.double().unsqueeze(1)
    if len(x) < 2:
        return torch.zeros(len(x), dtype=torch.bool)
    start = {
        "weights_init": [0.1, 0.9],
        "means_init": x.quantile(x.new_tensor([0.05, 0.6]), 0).numpy(),
        "precisions_init": [4 / max(float(x.var()), 1e-8)] * 2,
    }
    mixture = GaussianMixture(
        2, covariance_type="spherical", reg_covar=1e-8, tol=1e-6, max_iter=5000, **start
    )
    lower = torch.from_numpy(mixture.fit(x.numpy()).predict_proba(x.numpy())[:, 0] > 0.5)
    low, high = mixture.means_.ravel()
    found = lower & (x[:, 0] < high)
    two = high - low > APART * (mixture.covariances_**0.5).sum() and found.double().mean() <= MOST
    return found if two else torch.zeros_like(found)


def class_frequencies(p: Tensor, trained: Tensor, iterations: int = 200) -> Tensor:
    """How often the classes come among pictures with class probabilities p [m, K], by a classifier that was trained
    where they came with frequencies ``trained`` [K]: expectation maximisation (Saerens, Latinne & Decaestecker
    2002, eq. 2.7 to 2.9). float64 [K]."""
    likelihood = p.double() / trained.double().clamp_min(1e-12)
    found = trained.double().clone()
    for _ in range(iterations):
        joint = likelihood * found
        found = (joint / joint.sum(1, keepdim=True).clamp_min(1e-300)).mean(0)
    return found


def screened(task: Task, workshop: Workshop, outcome: Outcome) -> Screening | None:
    """The screening of a run, on the features of the network that the chosen candidate looks at, or on those of the
    usual one for such pictures where it looks at pixels, which tell too little of what a picture shows; None where the
    run has made no such features. Of several input sizes the largest counts."""
    on = outcome.trials[outcome.chosen].candidate.on
    name = on if on != "pixels" else next(space for space in spaces_for(task) if space != "pixels")
    made = [s for s in workshop.spaces.values() if isinstance(s, Space) and s.config["name"] == name]
    if not made or not len(task.unlabelled):
        return None
    raw = uncentred(max(made, key=lambda s: s.config["size"] or 0))
    p = outcome.probabilities(task.unlabelled)
    return screen(raw[task.labelled], task.y, raw[task.unlabelled], p, name)


def uncentred(features: Space) -> Tensor:
    """Features [N, D] seen from the network's own origin, not from the pool's mean, which strange pictures move, too;
    but for their length, which the table does not keep."""
    return features.table * features.length + features.centre.mean
