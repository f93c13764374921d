"""Batches for training: which pictures, in which views, as a pure function of (seed, stage, step)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
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
        views: by name: "x" for the labelled pictures, "weak", "strong" … for the unlabelled ones. Without "x" no
            labelled picture is shown, and there need not be any.
        batch: labelled pictures of a global batch.
        unlabelled: row numbers, int64 [m]; may be empty where no view but "x" is asked for.
        ratio: unlabelled pictures for each labelled one in a batch.
        extra: tensors with one row per picture of ``unlabelled`` that travel with it (a teacher's targets).
        mixing: mixes labelled pictures and their targets, which are then float [n, K].
        unlabelled_mixing: mixes unlabelled pictures in each of their views.
        pixels: names of unlabelled views whose decoded pictures come along, uint8, as ``NAME_pixels``.
        seed, stage: name the random draws.
        device: where batches are made.

    A batch holds ``x`` [B, C, H, W], ``y``, ``index`` [B] (row numbers), and for unlabelled pictures each
    view by its name [B * ratio, C, H, W] and ``u_index`` (as ``index`` too, where there is no "x"). ``draw`` is the
    step's key for draws of the method's own: the same number in every process.
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
    unlabelled_mixing: Mixing | None = None
    pixels: Collection[str] = ()
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
        out = {"draw": torch.tensor(key(self.seed, self.stage, "method", step))}
        if "x" in self.views:
            out |= self._labelled(step)
        names = [name for name in self.views if name != "x"]
        if names and self.ratio:
            size = self.batch * self.ratio
            everywhere = torch.from_numpy(
                positions(len(self.unlabelled), size, step, self.seed, self.stage, "unlabelled")
            )
            where = everywhere[parallel.rows(size)]
            for name in names:
                out |= self._unlabelled(name, self.unlabelled[everywhere], step)
            out |= {name: table[where].to(self.device) for name, table in self.extra.items()}
            out["u_index"] = self.unlabelled[where]
            out.setdefault("index", out["u_index"])
        return out

    def _labelled(self, step: int) -> dict[str, Tensor]:
        everywhere = torch.from_numpy(
            positions(len(self.labelled), self.batch, step, self.seed, self.stage, "labelled")
        )
        mine = torch.arange(self.batch)[parallel.rows(self.batch)]
        rows = self.labelled[everywhere]
        x, y = self._seen("x", rows[mine], self.batch, step, mine), self.y[everywhere[mine]]
        if self.mixing:
            x, theirs, weight = self._mixed("x", self.mixing, x, rows, step, mine)
            y = mixed_labels(y, self.y[everywhere[theirs]], weight)
        return {"x": self._input(x), "y": y.to(self.device), "index": rows[mine]}

    def _unlabelled(self, name: str, rows: Tensor, step: int) -> dict[str, Tensor]:
        """One view of the unlabelled pictures of the global batch, whose row numbers are ``rows``."""
        mine = torch.arange(len(rows))[parallel.rows(len(rows))]
        x = self._seen(name, rows[mine], len(rows), step, mine)
        if self.unlabelled_mixing:
            x, _, _ = self._mixed(name, self.unlabelled_mixing, x, rows, step, mine, name)
        seen = {f"{name}_pixels": x} if name in self.pixels else {}
        return {name: self._input(x), **seen}

    def _mixed(
        self, name: str, mixing: Mixing, x: Tensor, rows: Tensor, step: int, mine: Tensor, *purpose: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures x mixed with partners from the global batch ``rows``, the partners' places in it, and the pictures'
        own weights."""
        theirs = partners(len(rows), self.seed, self.stage, step, *purpose)[mine]
        if parallel.size() == 1:
            other = x.index_select(0, theirs.to(x.device))
        else:  # partners may be another process's: their pictures are made here once more
            other = self._seen(name, rows[theirs], len(rows), step, theirs)
        u = uniform((len(rows), mixing.n_draws), self.seed, self.stage, "mixing", step, *purpose)[mine]
        mixed, weight = mixing(x, other, u)
        return mixed, theirs, weight

    def _seen(self, name: str, rows: Tensor, size: int, step: int, places: Tensor) -> Tensor:
        """Pictures as a view shows them, uint8; ``places`` are theirs in the global batch."""
        view = self.views[name]
        u = uniform((size, view.n_draws), self.seed, self.stage, "view", name, step)[places]
        return view(self.images.take(rows).to(self.device), u)

    def _input(self, x: Tensor) -> Tensor:
        return to_input(x, self.spec).contiguous(memory_format=torch.channels_last)
