"""Batches for training: which pictures, in which views, as a pure function of (seed, stage, step)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
class Source:
    """Pictures that a batch takes its share from: the labelled ones, the unlabelled ones, another domain's.

    Attributes:
        rows: row numbers, int64 [n].
        batch: how many a global batch holds, b.
        views: by the name under which the batch holds them, each [b, C, H, W]; unique over all sources.
        index: the name under which the batch holds their row numbers, int64 [b].
        tables: further tensors with a row for each of ``rows`` that travel with the pictures by their names: labels, a
            teacher's answers.
        mixing: mixes pictures in each of their views.
        mixed: those of ``tables``, float [n, K], that are mixed as the pictures of the (single) view are.
        pixels: names of views whose decoded pictures come along, uint8, as ``NAME_pixels``.
    """

    rows: Tensor
    batch: int
    views: Mapping[str, View]
    index: str
    tables: Mapping[str, Tensor] = field(default_factory=dict)
    mixing: Mixing | None = None
    mixed: Collection[str] = ()
    pixels: Collection[str] = ()


def semi_supervised(
    labelled: Tensor,
    y: Tensor,
    views: Mapping[str, View],
    batch: int,
    unlabelled: Tensor | None = None,
    ratio: int = 0,
    tables: Mapping[str, Tensor] | None = None,
) -> dict[str, Source]:
    """Labelled pictures under "x" with their targets "y", and unlabelled ones in every other view.

    Args:
        labelled, unlabelled: row numbers, int64 [n] and [m].
        y: targets: int64 [n], or float [n, K] (soft).
        views: without "x" no labelled picture is shown.
        batch: labelled pictures of a global batch.
        ratio: unlabelled pictures for each labelled one; 0: none.
        tables: of the unlabelled pictures.
    """
    others = {name: view for name, view in views.items() if name != "x"}
    found = {}
    if "x" in views:
        found["labelled"] = Source(labelled, batch, {"x": views["x"]}, "index", {"y": y})
    if others and ratio:
        assert unlabelled is not None
        found["unlabelled"] = Source(unlabelled, batch * ratio, others, "u_index", tables or {})
    return found


@dataclass(frozen=True)
class TrainStream:
    """Batches that are fed from several sources.

    Attributes:
        images: where pixels come from.
        spec: what the network wants to see.
        sources: by name; the name is part of the key of their random order.
        seed, stage: name the random draws.
        device: where batches are made.

    A batch holds what its sources say; "index", the row numbers of the first source's pictures; and "draw", the step's
    key for draws of the method's own: the same number in every process.
    """

    images: Images
    spec: InputSpec
    sources: Mapping[str, Source]
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
        for name, source in self.sources.items():
            out |= self._of(name, source, step)
            out.setdefault("index", out[source.index])
        return out

    def _of(self, name: str, source: Source, step: int) -> dict[str, Tensor]:
        """One source's part of the batch."""
        everywhere = torch.from_numpy(
            positions(len(source.rows), source.batch, step, self.seed, self.stage, name)
        )
        mine = torch.arange(source.batch)[parallel.rows(source.batch)]
        rows, here = source.rows[everywhere], everywhere[mine]
        out = {source.index: rows[mine]}
        out |= {word: table[here] for word, table in source.tables.items()}
        for view in source.views:
            x = self._seen(source, view, rows[mine], step, mine)
            if source.mixing:
                x, theirs, weight = self._mixed(source, view, x, rows, step, mine)
                for word in source.mixed:
                    out[word] = mixed_labels(out[word], source.tables[word][everywhere[theirs]], weight)
            if view in source.pixels:
                out[f"{view}_pixels"] = x
            out[view] = self._input(x)
        return {word: value if word == source.index else value.to(self.device) for word, value in out.items()}

    def _mixed(
        self, source: Source, view: str, x: Tensor, rows: Tensor, step: int, mine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures x mixed with partners from the global batch ``rows``, the partners' places in it, and the pictures'
        own weights."""
        assert source.mixing is not None
        purpose = () if view == "x" else (view,)
        theirs = partners(len(rows), self.seed, self.stage, step, *purpose)[mine]
        if parallel.size() == 1:
            other = x.index_select(0, theirs.to(x.device))
        else:  # partners may be another process's: their pictures are made here once more
            other = self._seen(source, view, rows[theirs], step, theirs)
        n_draws = source.mixing.n_draws
        u = uniform((len(rows), n_draws), self.seed, self.stage, "mixing", step, *purpose)[mine]
        mixed, weight = source.mixing(x, other, u)
        return mixed, theirs, weight

    def _seen(self, source: Source, name: str, rows: Tensor, step: int, places: Tensor) -> Tensor:
        """Pictures as a view shows them, uint8; ``places`` are theirs in the source's global batch."""
        view = source.views[name]
        u = uniform((source.batch, view.n_draws), self.seed, self.stage, "view", name, step)[places]
        return view(self.images.take(rows).to(self.device), u)

    def _input(self, x: Tensor) -> Tensor:
        return to_input(x, self.spec).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Ahead:
    """A stream whose next batch is made in another thread while the last one is learnt from. Batches are pure functions
    of the step, so they stay the same."""

    stream: TrainStream

    def batches(self, start: int) -> Iterator[Batch]:
        """Those of the stream."""
        step = start
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as maker:
            coming = maker.submit(self.stream.at, step)
            while True:
                batch, step = coming.result(), step + 1
                coming = maker.submit(self.stream.at, step)
                yield batch
