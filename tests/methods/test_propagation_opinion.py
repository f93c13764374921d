"""The regression's opinion and the cap on propagated labels: degenerate settings, masses, weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from handful.methods.label_propagation import LabelPropagation, affinity
from handful.methods.probe import LogisticRegression

Toy = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def toy() -> Toy:
    """Three groups of 20 in 8 dimensions; two labels each."""
    g = torch.Generator().manual_seed(0)
    centre = torch.randn(3, 8, generator=g)
    nodes = F.normalize(centre.repeat_interleave(20, 0) + 0.3 * torch.randn(60, 8, generator=g), dim=1)
    return nodes, torch.tensor([0, 7, 20, 31, 40, 59]), torch.tensor([0, 0, 1, 1, 2, 2])


def test_no_prior_is_propagation_of_the_labels_alone(toy: Toy) -> None:
    nodes, seeds, y = toy
    method = LabelPropagation(prior=0)
    s = affinity(nodes, method.neighbours, method.power)
    assert method.opinion(nodes, seeds, y, 3) is None
    opinion = LabelPropagation().opinion(nodes, seeds, y, 3)
    assert opinion is not None
    assert torch.equal(method.propagate(s, seeds, y, 3), method.propagate(s, seeds, y, 3, opinion))


def test_opinion_has_the_stated_mass(toy: Toy) -> None:
    nodes, seeds, y = toy
    method = LabelPropagation(alpha=0.0, iterations=1, prior=0.2)  # nothing flows: F = Y
    s = affinity(nodes, method.neighbours, method.power)
    opinion = method.opinion(nodes, seeds, y, 3)
    assert opinion is not None
    p = method.propagate(s, seeds, y, 3, opinion).double().numpy()
    q = opinion.double().numpy().copy()
    q[seeds.numpy()] = 0
    expected = 0.2 * 6 / 3 * q / q.sum(0)
    rows = np.setdiff1d(np.arange(60), seeds.numpy())
    np.testing.assert_allclose(
        p[rows], (expected / expected.sum(1, keepdims=True).clip(1e-30))[rows], rtol=1e-5
    )


def test_cap_bounds_the_total_weight_of_propagated_labels(toy: Toy) -> None:
    _, seeds, _ = toy
    method = LabelPropagation(cap=5)
    p = torch.full((60, 3), 1 / 3)
    _, weight = method.targets(p, seeds)
    assert torch.equal(weight[seeds], torch.ones(6))
    assert float(weight.sum()) == pytest.approx(6 + 5 * 3)
    for cap in (0.0, 1e6):  # no limit, or one that does not bind
        assert torch.equal(replace(method, cap=cap).targets(p, seeds)[1], torch.ones(60))


def test_solves_the_toy_task_with_the_defaults(toy: Toy) -> None:
    nodes, seeds, y = toy
    head = LabelPropagation().fit(nodes, seeds, y, 3)
    with torch.no_grad():
        assert torch.equal(head(nodes).argmax(1), torch.arange(3).repeat_interleave(20))


def test_share_mixes_the_logits_of_both_regressions(toy: Toy) -> None:
    nodes, seeds, y = toy
    method = LabelPropagation(share=0.3)
    mixed = method.fit(nodes, seeds, y, 3)
    propagated = replace(method, share=0.0).fit(nodes, seeds, y, 3)
    plain = LogisticRegression(method.C).fit(nodes[seeds], y, 3)
    with torch.no_grad():
        torch.testing.assert_close(mixed(nodes), 0.7 * propagated(nodes) + 0.3 * plain(nodes))
        alone = replace(method, share=1.0).fit(nodes, seeds, y, 3)
        torch.testing.assert_close(alone(nodes), plain(nodes))
