"""What is wrong with the unlabelled pictures: some are like no labelled class, or the classes come differently often.

Legend: n labelled and m unlabelled pictures, D features of length 1, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from handful.data.manifest import Issue
from handful.recipes.auto import Outcome
from handful.recipes.task import Task, Workshop
from handful.recipes.transfer import Space

NEIGHBOURS = 10  # pictures of the pool over which likeness is averaged
DEVIATIONS = 3.5  # robust standard deviations below the median from which a picture counts as strange
FEWEST = 5  # strange pictures; fewer may be the tail of an honest pool
WHERE = "unlabelled pictures"
MISMATCH = 0.15  # share of pictures in another class than the labels' frequencies say, from which it is told


@dataclass(frozen=True)
class Screening:
    """What was found.

    Attributes:
        likeness: of each unlabelled picture to the labelled ones, float32 [m]; larger is more alike.
        strange: bool [m], pictures that are unlike every labelled class.
        frequency: estimated share of each class among the others, float64 [K].
        labelled: share of each class among the labelled pictures, float64 [K].
    """

    likeness: Tensor
    strange: Tensor
    frequency: Tensor
    labelled: Tensor

    @property
    def mismatch(self) -> float:
        """Total variation between the two frequencies, 0 to 1: the share of pictures in another class."""
        return float((self.frequency - self.labelled).abs().sum() / 2)

    def overall(self, classes: tuple[str, ...]) -> list[Issue]:
        """What the user should know of the unlabelled pictures as a whole; nothing where all is well."""
        found = []
        if int(self.strange.sum()) >= FEWEST:
            reason = f"{int(self.strange.sum())} of {len(self.strange)} are like no labelled class"
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
        """The same, and every strange picture by name, the least alike first."""
        found = self.overall(task.classes)
        if any(issue.kind == "strange" for issue in found):
            rows = torch.nonzero(self.strange).flatten()
            for i in rows[self.likeness[rows].argsort()].tolist():
                name = task.images.names[int(task.unlabelled[i])]
                found.append(
                    Issue(name, "like no labelled class", "look at it; take it out or label it", "strange")
                )
        return found


def screen(labelled: Tensor, y: Tensor, unlabelled: Tensor, p: Tensor) -> Screening:
    """Look at the unlabelled pictures.

    Args:
        labelled: features [n, D] of length 1, with classes ``y`` int64 [n].
        unlabelled: features [m, D] of length 1.
        p: calibrated class probabilities [m, K] of a classifier that was trained on the labelled pictures.
    """
    like = likeness(labelled, unlabelled)
    strange = outliers(like)
    share = torch.bincount(y, minlength=p.shape[1]).double() / len(y)
    frequency = class_frequencies(p[~strange], share) if bool((~strange).any()) else share
    return Screening(like, strange, frequency, share)


def likeness(labelled: Tensor, unlabelled: Tensor, neighbours: int = NEIGHBOURS, chunk: int = 2048) -> Tensor:
    """Cosine with the nearest labelled picture, averaged over each picture's nearest neighbours in the pool: [m].

    A picture of a class may look like none of the few labelled ones, but its neighbours do; pictures of something
    else have only each other.
    """
    own = torch.cat([(part @ labelled.T).amax(1) for part in unlabelled.split(chunk)])
    k = min(neighbours + 1, len(unlabelled))  # each picture is its own first neighbour
    near = torch.cat([(part @ unlabelled.T).topk(k, dim=1).indices for part in unlabelled.split(chunk)])
    return own[near].mean(1)


def outliers(values: Tensor, deviations: float = DEVIATIONS) -> Tensor:
    """bool [m]: values that lie further than ``deviations`` robust standard deviations (1.4826 times the median
    distance from the median: Hampel 1974) below the median."""
    median = values.median()
    spread = 1.4826 * (values - median).abs().median()
    return values < median - deviations * spread


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
    """The screening of a run, on features that it has made anyway; None where it has made none."""
    made = [space for space in workshop.spaces.values() if isinstance(space, Space)]
    if not made or not len(task.unlabelled):
        return None
    table = made[0].table
    p = outcome.probabilities(task.unlabelled)
    return screen(table[task.labelled], task.y, table[task.unlabelled], p)
