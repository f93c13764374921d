"""What is wrong with the unlabelled pictures: some are like no labelled class, or the classes come differently often.

Legend: n labelled and m unlabelled pictures, D features of length 1, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

NEIGHBOURS = 10  # pictures of the pool whose likeness is averaged
STRANGE = 3.5  # robust standard deviations below the median from which a picture counts as strange
FEWEST_STRANGE = 5  # fewer may be the tail of an honest pool
MISMATCH = 0.15  # total variation between the class frequencies from which it is told


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
    def distance(self) -> float:
        """Total variation between the two class frequencies, 0 to 1: the share that is in another class."""
        return float((self.frequency - self.labelled).abs().sum() / 2)
