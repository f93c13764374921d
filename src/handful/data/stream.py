"""Batches for training: which pictures, in which views, as a pure function of (seed, stage, step)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from handful import parallel
from handful.augment.mix import Mixing, mixed_labels, partners
from handful.augment.views import View, to_input
from handful.data.images import Images
from handful.data.order import positions
from handful.randomness import key, uniform
from handful.types import Batch, InputSpec


@dataclass(frozen=True)
class TrainStream:
    """Labelled pictures under ``x`` with targets ``y``; unlabelled ones in each view that a method asks for.

    Attributes:
        images: where pixels come from.
        spec: what the network wants to see.
        labelled: row numbers, int64 [n].
        y: targets of the labelled rows: int64 [n], or float [n, K] (soft).
        views: by name: "x" for the labelled pictures, "weak", "strong" … for the unlabelled ones.
        batch: labelled pictures of a global batch.
        unlabelled: row numbers, int64 [m]; may be empty where no view but "x" is asked for.
        ratio: unlabelled pictures for each labelled one in a batch.
        extra: tensors with one row per picture of ``unlabelled`` that travel with it (a teacher's targets).
        mixing: mixes labelled pictures and their targets, which are then float [n, K].
        seed, stage: name the random draws.
        device: where batches are made.

    A batch holds ``x`` [B, C, H, W], ``y``, ``index`` [B] (row numbers), and for unlabelled pictures each
    view by its name [B * ratio, C, H, W] and ``u_index``. Without a view "x" there are no labelled pictures, and
    ``index`` is ``u_index``. ``draw`` is the step's key for draws of the method's own: the same number in every
    process.
    """

    images: Images
    spec: InputSpec
    labelled: Tensor
    y: Tensor
    views: Mapping[str, View]
    batch: int = 32
    unlabelled: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    ratio: int = 0
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    mixing: Mixing | None = None
    seed: int = 0
    stage: str = "train"
    device: str = "cpu"

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches from step ``start`` on, without end; this rank's slice of each."""
        step = start
        while True:
            yield self.at(step)
            step += 1

    def at(self, step: int) -> dict[str, Tensor]:
        """The batch of one step."""
        out = self._labelled(step) if "x" in self.views else {}
        out["draw"] = torch.tensor(key(self.seed, self.stage, "method", step))
        names = [name for name in self.views if name != "x"]
        if names and self.ratio:
            size = self.batch * self.ratio
            where = self._positions(len(self.unlabelled), size, step, "unlabelled")
            rows = self.unlabelled[where]
            out |= {name: self._view(name, rows, size, step) for name in names}
            out |= {name: table[where].to(self.device) for name, table in self.extra.items()}
            out |= {"index": out.get("index", rows), "u_index": rows}
        return out

    def _labelled(self, step: int) -> dict[str, Tensor]:
        everywhere = torch.from_numpy(
            positions(len(self.labelled), self.batch, step, self.seed, self.stage, "labelled")
        )
        mine = torch.arange(self.batch)[parallel.rows(self.batch)]
        rows = self.labelled[everywhere[mine]]
        x, y = self._seen("x", rows, self.batch, step, mine), self.y[everywhere[mine]]
        if self.mixing:
            theirs = partners(self.batch, self.seed, self.stage, step)[mine]
            if parallel.size() == 1:
                other = x.index_select(0, theirs.to(x.device))
            else:  # partners may be another process's: their pictures are made here once more
                other = self._seen("x", self.labelled[everywhere[theirs]], self.batch, step, theirs)
            u = uniform((self.batch, self.mixing.n_draws), self.seed, self.stage, "mixing", step)[mine]
            x, weight = self.mixing(x, other, u)
            y = mixed_labels(y, self.y[everywhere[theirs]], weight)
        return {"x": self._input(x), "y": y.to(self.device), "index": rows}

    def _positions(self, n: int, size: int, step: int, name: str) -> Tensor:
        return torch.from_numpy(positions(n, size, step, self.seed, self.stage, name)[parallel.rows(size)])

    def _view(self, name: str, rows: Tensor, size: int, step: int) -> Tensor:
        mine = torch.arange(size)[parallel.rows(size)]
        return self._input(self._seen(name, rows, size, step, mine))

    def _seen(self, name: str, rows: Tensor, size: int, step: int, places: Tensor) -> Tensor:
        """Pictures as a view shows them, uint8; ``places`` are theirs in the global batch."""
        view = self.views[name]
        u = uniform((size, view.n_draws), self.seed, self.stage, "view", name, step)[places]
        return view(self.images.take(rows).to(self.device), u)

    def _input(self, x: Tensor) -> Tensor:
        return to_input(x, self.spec).contiguous(memory_format=torch.channels_last)
