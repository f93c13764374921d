"""Screening against loops, closed forms and planted strangers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import handful.study.screening as screening
from handful.choose.auto import Outcome, Trial
from handful.data.images import from_array
from handful.models.heads import Centre
from handful.randomness import permutation
from handful.recipes.candidate import Candidate
from handful.recipes.feature_space import Space
from handful.recipes.task import Task, Workshop
from handful.study.screening import class_frequencies, likeness, lower_kind, screen, screened

D = 32


def cloud(centre: int, n: int, spread: float = 0.15, seed: int = 0) -> Tensor:
    """n features of length 1 around the axis number ``centre``."""
    draw = torch.Generator().manual_seed(100 * seed + centre)
    return F.normalize(torch.eye(D)[centre] + spread * torch.randn(n, D, generator=draw), dim=1)


def pool(counts: list[int], seed: int = 0, labels: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A few labelled pictures of each of three classes; ``counts`` unlabelled ones of each, and of a fourth thing.
    Returns features and classes of the labelled ones, features and classes (3: strange) of the others."""
    labelled = torch.cat([cloud(k, labels, seed=seed + 50) for k in range(3)])
    others = torch.cat([cloud(k, n, seed=seed) for k, n in enumerate(counts)])
    truth = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labelled, torch.arange(3).repeat_interleave(labels), others, truth


def probabilities(x: Tensor) -> Tensor:
    return (12 * x[:, :3]).softmax(1)


def test_likeness_equals_a_loop() -> None:
    labelled, _, others, _ = pool([5, 4, 3])
    found = likeness(labelled, others, neighbours=3, chunk=5)
    own = [max(float(u @ v) for v in labelled) for u in others]
    for i, u in enumerate(others):
        near = sorted(range(len(others)), key=lambda j: -float(u @ others[j]))[:4]
        assert near[0] == i, "a picture is its own first neighbour"
        assert float(found[i]) == pytest.approx(sum(own[j] for j in near) / 4, rel=1e-5)


def test_a_large_pool_is_sampled_for_neighbours() -> None:
    labelled, _, others, _ = pool([8, 6, 5])
    found = likeness(labelled, others, neighbours=2, chunk=5, most=7)
    own = [max(float(u @ v) for v in labelled) for u in others]
    some = permutation(len(others), "likeness")[:7].tolist()
    for i, u in enumerate(others):
        near = sorted(some, key=lambda j: -float(u @ others[j]))[:3]
        assert float(found[i]) == pytest.approx(sum(own[j] for j in near) / 3, rel=1e-5)


def test_two_kinds_are_told_apart_by_the_better_likelihood() -> None:
    """Normal distributions at 0 (deviation 1, 200 values) and 12 (deviation 2, 800): the nearer in likelihood."""
    draw = torch.Generator().manual_seed(1)
    low, high = torch.randn(200, generator=draw), 12 + 2 * torch.randn(800, generator=draw)
    values = torch.cat([low, high])
    found = lower_kind(values)
    score_low = math.log(0.2) - values**2 / 2
    score_high = math.log(0.8) - math.log(2) - ((values - 12) / 2) ** 2 / 2
    clear = (score_low - score_high).abs() > 2  # the fit is not exact where the two are equal
    assert torch.equal(found[clear], (score_low > score_high)[clear])
    assert 195 <= int(found.sum()) <= 205


def test_one_kind_or_two_that_overlap_are_left_alone() -> None:
    draw = torch.Generator().manual_seed(1)
    normal = torch.randn(1000, generator=draw)
    assert not lower_kind(normal).any()
    assert not lower_kind(torch.ones(50)).any()
    assert not lower_kind(torch.cat([normal[:200], normal[200:] + 3])).any()
    mostly_low = torch.cat([normal[:800], normal[800:] + 30])
    assert not lower_kind(mostly_low).any(), "what is most of the pool is not strange"


def test_fewer_than_four_labels_of_a_class_tell_too_little() -> None:
    labelled, y, others, _ = pool([60, 60, 60, 25])
    some = torch.cat([torch.arange(0, 3), torch.arange(4, 12)])
    assert screen(labelled, y, others, probabilities(others), "lite0").strange.any()
    assert not screen(labelled[some], y[some], others, probabilities(others), "lite0").strange.any()


def test_planted_strangers_are_found() -> None:
    labelled, y, others, truth = pool([60, 60, 60, 25])
    result = screen(labelled, y, others, probabilities(others), "lite0")
    strange = truth == 3
    precision = float((result.strange & strange).sum() / result.strange.sum())
    recall = float((result.strange & strange).sum() / strange.sum())
    assert precision >= 0.95
    assert recall >= 0.95
    (issue,) = result.overall(("a", "b", "c"))
    assert issue.kind == "strange"
    assert (
        issue.reason
        == f"{int(result.strange.sum())} of 205 are like no labelled class, by the features of lite0"
    )


@pytest.mark.parametrize("seed", range(5))
def test_of_an_honest_pool_nothing_is_said(seed: int) -> None:
    labelled, y, others, _ = pool([60, 60, 60], seed)
    assert screen(labelled, y, others, probabilities(others), "lite0").overall(("a", "b", "c")) == []


def test_another_share_of_the_classes_is_told() -> None:
    labelled, y, others, _ = pool([150, 25, 25], labels=16)
    result = screen(labelled, y, others, probabilities(others), "lite0")
    assert result.frequency.tolist() == pytest.approx([0.75, 0.125, 0.125], abs=0.03)
    assert result.mismatch == pytest.approx(0.75 - 1 / 3, abs=0.03)
    (issue,) = result.overall(("oak", "ash", "elm"))
    assert issue.kind == "shares"
    assert "oak 7" in issue.reason
    assert "labelled 33 %" in issue.reason
    labelled, y, others, _ = pool([150, 25, 25])
    few = screen(labelled, y, others, probabilities(others), "lite0")
    assert few.overall(("oak", "ash", "elm")) == [], "with 4 labels a class it cannot be estimated"


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_frequencies_of_overlapping_classes(share: float) -> None:
    """Two normal distributions at -1 and 1: a classifier trained at one half each says 1 / (1 + exp(-2 v)); counting
    its answers would be off by up to 16 % of the pictures, which it gets wrong."""
    draw = torch.Generator().manual_seed(0)
    n = 40_000
    side = torch.where(torch.rand(n, generator=draw) < share, 1.0, -1.0)
    p = torch.sigmoid(2 * (side + torch.randn(n, generator=draw)))
    found = class_frequencies(torch.stack([p, 1 - p], 1), torch.tensor([0.5, 0.5]))
    assert float(found[0]) == pytest.approx(share, abs=0.01)
    counted = float((p > 0.5).float().mean())
    right = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert counted == pytest.approx(share * right + (1 - share) * (1 - right), abs=0.01)


def test_frequencies_start_from_what_the_classifier_was_trained_on() -> None:
    """A classifier trained at 9 to 1 whose answers are nothing but that: the pool has those shares, too."""
    trained = torch.tensor([0.9, 0.1])
    assert class_frequencies(trained.expand(50, 2), trained).tolist() == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        ("fine-tune@timm:resnet18", "timm:resnet18"),
        ("logistic@lite0", "lite0"),
        ("supervised@pixels", "lite0"),
    ],
)
def test_the_chosen_candidates_features_tell_whichever_were_made_first(
    chosen: str, seen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of several input sizes the largest; by the usual network's where pixels were chosen."""

    def made(name: str, size: int | None) -> Space:
        centre = Centre(D)
        return Space(torch.rand(9, D), nn.Identity(), {"name": name, "size": size}, centre, False, 1.0, {})

    spaces = {(n, s): made(n, s) for n, s in [("timm:resnet18", None), ("pixels", 0), ("lite0", 128)]}
    spaces["lite0", 192] = made("lite0", 192)
    rows = torch.arange(9)
    images = from_array(np.zeros((9, 8, 8), np.uint8))
    task = Task(images, rows[:4], rows[:4] % 2, rows[4:], ("a", "b"))
    trial = Trial(Candidate(*chosen.split("@")))
    outcome = Outcome(None, chosen, {chosen: trial})  # type: ignore[arg-type]
    monkeypatch.setattr(outcome, "probabilities", lambda rows: torch.full((len(rows), 2), 0.5))
    looked: list[Space] = []
    uncentred = screening.uncentred
    monkeypatch.setattr(screening, "uncentred", lambda s: (looked.append(s), uncentred(s))[1])
    found = screened(task, Workshop(tmp_path, tmp_path, spaces=spaces), outcome)
    assert found is not None and found.space == seen
    assert looked == [spaces[seen, {"lite0": 192}.get(seen)]]
    del spaces["lite0", 192], spaces["lite0", 128], spaces["timm:resnet18", None]
    assert screened(task, Workshop(tmp_path, tmp_path, spaces=spaces), outcome) is None
