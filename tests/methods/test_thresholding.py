"""The rules of the thresholding object against loops in plain Python over several updates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from handful.methods.thresholding import Thresholding

K, B, UPDATES = 3, 16, 6


def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Probabilities [B, K], labels [4], row numbers [B] of several steps; the model grows surer."""
    draw = torch.Generator().manual_seed(5)
    out = []
    for t in range(UPDATES):
        logits = (1 + t / 2) * torch.randn(B, K, dtype=torch.float64, generator=draw)
        labels = torch.randint(K, (4,), generator=draw)
        rows = 10 + torch.randperm(20, generator=draw)[:B]
        out.append((logits.softmax(1), labels, rows))
    return out


def decay(t: int, momentum: float = 0.999) -> float:
    return min(momentum, (1 + t) / (10 + t))


def test_running_class_frequencies_equal_a_loop() -> None:
    memory = Thresholding(K)
    found, histogram, wanted = [1 / K] * K, [1 / K] * K, [1 / K] * K
    for t, (p, y, _) in enumerate(batches()):
        memory.observe(p, y)
        memory(p)
        d, rows = decay(t), p.tolist()
        for k in range(K):
            found[k] = d * found[k] + (1 - d) * sum(row[k] for row in rows) / B
            histogram[k] = d * histogram[k] + (1 - d) * sum(row.index(max(row)) == k for row in rows) / B
            wanted[k] = d * wanted[k] + (1 - d) * y.tolist().count(k) / 4
    assert memory.found.tolist() == pytest.approx(found, rel=1e-9)
    assert memory.histogram.tolist() == pytest.approx(histogram, rel=1e-9)
    assert memory.wanted.tolist() == pytest.approx(wanted, rel=1e-9)
    assert int(memory.t) == UPDATES


def test_fixed() -> None:
    memory = Thresholding(K, threshold=0.8)
    for p, _, _ in batches():
        assert memory(p).tolist() == [float(max(row) >= 0.8) for row in p.tolist()]


def test_relative_to_the_labelled_pictures() -> None:
    memory = Thresholding(K, rule="relative", threshold=0.9)
    labelled = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], dtype=torch.float64)
    for p, _, _ in batches():
        weights = memory(p, labelled=labelled)
        assert weights.tolist() == [float(max(row) >= 0.9 * 0.65) for row in p.tolist()]


def test_learnt_equals_a_loop_over_the_pictures() -> None:
    """FlexMatch, algorithm 1: thresholds from the pictures' records, then the records from this batch."""
    memory = Thresholding(K, torch.arange(10, 30), rule="learnt", threshold=0.7)
    record = dict.fromkeys(range(10, 30), -1)
    seen = set()
    for p, _, rows in batches():
        counts = [sum(k == r for r in record.values()) for k in range(K)]
        unused = sum(r == -1 for r in record.values())
        status = [n / max(*counts, unused) for n in counts]
        assert memory.status().tolist() == pytest.approx(status)
        expected = []
        for row in p.tolist():
            s = status[row.index(max(row))]
            expected.append(float(max(row) >= 0.7 * s / (2 - s)))
        assert memory(p, index=rows).tolist() == expected
        seen.update(expected)
        for row, number in zip(p.tolist(), rows.tolist()):
            if max(row) >= 0.7:
                record[number] = row.index(max(row))
    assert seen == {0.0, 1.0}, "the example must have both kinds of rows"


def test_adaptive_equals_a_loop() -> None:
    memory = Thresholding(K, rule="adaptive")
    level, found, seen = 1 / K, [1 / K] * K, set()
    for t, (p, y, _) in enumerate(batches()):
        d, rows = decay(t), p.tolist()
        level = d * level + (1 - d) * sum(max(row) for row in rows) / B
        found = [d * f + (1 - d) * sum(row[k] for row in rows) / B for k, f in enumerate(found)]
        memory.observe(p, y)
        expected = [float(max(row) >= level * found[row.index(max(row))] / max(found)) for row in rows]
        assert memory(p).tolist() == expected
        seen.update(expected)
    assert seen == {0.0, 1.0}


def test_gaussian_equals_a_loop() -> None:
    memory = Thresholding(K, rule="gaussian")
    level, variance = 1 / K, 1.0
    for t, (p, _, _) in enumerate(batches()):
        d, c = decay(t), [max(row) for row in p.tolist()]
        mean = sum(c) / B
        variance = d * variance + (1 - d) * sum((v - mean) ** 2 for v in c) / (B - 1)
        level = d * level + (1 - d) * mean
        expected = [1.0 if v >= level else math.exp(-((v - level) ** 2) / (2 * variance / 4)) for v in c]
        assert memory(p).tolist() == pytest.approx(expected, rel=1e-9)
    assert 0 < min(expected) < 1


def test_of_two_views_of_one_picture_the_record_is_the_same_in_any_order() -> None:
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    records = []
    for order in ([0, 1], [1, 0]):
        memory = Thresholding(2, torch.arange(3), rule="learnt", threshold=0.8)
        memory(p[order], index=torch.tensor([2, 2]))
        records.append(memory.confident.tolist())
    assert records[0] == records[1] == [-1, -1, 1]


def test_alignment_undoes_a_bias_towards_one_class() -> None:
    memory = Thresholding(2, momentum=0.5)
    biased = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.5]])
    for _ in range(40):
        memory.observe(biased, torch.tensor([0, 1]))
        memory(biased)
    assert memory.found.tolist() == pytest.approx([0.7, 0.3], abs=1e-6)
    odds = [a / b * (0.3 / 0.7) for a, b in biased.tolist()]
    aligned = memory.align(biased)
    assert aligned[:, 0].tolist() == pytest.approx([o / (1 + o) for o in odds], abs=1e-5)
    torch.testing.assert_close(memory.align(biased, uniform=True), aligned, rtol=0, atol=1e-6)


def test_what_cannot_be_made_says_so() -> None:
    with pytest.raises(ValueError, match="fixed, relative"):
        Thresholding(2, rule="fuzzy")
    with pytest.raises(ValueError, match="row numbers"):
        Thresholding(2, rule="learnt")
