"""Heads on frozen features against scikit-learn and naive computations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import linear_model
from sklearn.datasets import load_digits
from torch import Tensor

from handful.methods.label_propagation import LabelPropagation, affinity
from handful.methods.probe import ClassMean, LogisticRegression, Neighbours
from handful.models.classifier import Classifier, PixelComponents
from handful.models.heads import Centre, Chain
from handful.stats.logistic import solve_logistic


def digits(n: int = 200) -> tuple[Tensor, Tensor]:
    """Real digits as features of length 1."""
    x, y = load_digits(return_X_y=True)
    x = torch.from_numpy(x[:n]).float()
    return torch.nn.functional.normalize(x - x.mean(0), dim=1), torch.from_numpy(y[:n]).long()


@pytest.mark.parametrize("n", [30, 60, 120])
def test_neighbours_take_memory_for_every_label_and_the_others_for_every_class(n: int) -> None:
    """4 n D + 8 n bytes for the neighbours, 4 K D and 4 K for the regression, whatever n is."""
    x, y = digits(n)
    d = x.shape[1]
    backbone = PixelComponents(1, 8, d)

    def taken(method: Any) -> int:
        centred = Centre(d)
        made = Classifier(backbone, Chain(centred, method.fit(x, y, 10)), backbone.config())
        return made.learned_bytes - 4 * d  # without the centre, which all have

    assert taken(Neighbours()) == 4 * n * d + 8 * n
    assert taken(LogisticRegression()) == 4 * 10 * d + 4 * 10
    assert taken(ClassMean()) == 4 * 10 * d


@pytest.mark.parametrize("C", [0.1, 10.0, 1000.0])
def test_logistic_regression_equals_scikit_learn(C: float) -> None:
    x, y = digits()
    theirs = linear_model.LogisticRegression(C=C, max_iter=5000, tol=1e-8).fit(x.double().numpy(), y.numpy())
    head = LogisticRegression(C).fit(x, y, 10)
    p = torch.softmax(head(x), 1).detach().numpy()
    np.testing.assert_allclose(p, theirs.predict_proba(x.double().numpy()), atol=2e-3)
    # ours stops at a gradient of 1e-5 of the mean loss: 1 % of the weights where the penalty is weak
    assert abs(head.weight.detach().numpy() - theirs.coef_).max() < 0.02 * abs(theirs.coef_).max()


def test_weights_count_as_repetitions_and_soft_targets_as_mixtures() -> None:
    x, y = digits(60)
    target = torch.nn.functional.one_hot(y, 10).float()
    twice = torch.ones(60)
    twice[:20] = 2
    a = solve_logistic(x, target, twice, 1.0)
    b = solve_logistic(torch.cat([x, x[:20]]), torch.cat([target, target[:20]]), torch.ones(80), 1.0)
    torch.testing.assert_close(a[0], b[0], atol=2e-3, rtol=0)
    mixed = 0.25 * target + 0.75 * target.roll(1, 0)
    a = solve_logistic(x, mixed, torch.ones(60), 1.0)
    b = solve_logistic(
        x.repeat(2, 1),
        torch.cat([target, target.roll(1, 0)]),
        torch.cat([torch.full((60,), 0.25), torch.full((60,), 0.75)]),
        1.0,
    )
    torch.testing.assert_close(a[0], b[0], atol=2e-3, rtol=0)


def test_nearest_mean_and_neighbours_number_by_number() -> None:
    x, y = digits(60)
    q = digits(90)[0][60:]
    means = [x[y == k].double().mean(0) for k in range(10)]
    cosine = torch.stack([(q.double() @ m) / m.norm() for m in means], 1)
    ours = ClassMean(scale=7.0).fit(x, y, 10)(q)
    torch.testing.assert_close(ours.double(), 7 * cosine, atol=1e-4, rtol=0)

    ours = Neighbours(k=5, temperature=0.2).fit(x, y, 10)(q).softmax(1)
    for i, row in enumerate((q @ x.T).tolist()):
        votes = [0.0] * 10
        for j in sorted(range(60), key=lambda j, row=row: -row[j])[:5]:
            votes[int(y[j])] += math.exp(row[j] / 0.2)
        share = np.array(votes) / sum(votes)
        np.testing.assert_allclose(ours[i].numpy(), 0.999 * share + 0.001 / 10, atol=1e-4)
    few = Neighbours(k=50).fit(x[:3], torch.tensor([0, 1, 1]), 2)(q)
    assert few.shape == (30, 2)


def naive_affinity(x: np.ndarray, k: int, power: float) -> np.ndarray:
    n = len(x)
    a = np.zeros((n, n))
    for i in range(n):
        cosine = x @ x[i]
        for j in sorted((j for j in range(n) if j != i), key=lambda j: -cosine[j])[:k]:
            a[i, j] = max(cosine[j], 0) ** power
    a = (a + a.T) / 2
    d = a.sum(1)
    scale = 1 / np.sqrt(np.where(d > 0, d, 1))
    return scale[:, None] * a * scale


@pytest.mark.parametrize("chunk", [7, 2048])
def test_the_graph_equals_a_double_loop(chunk: int) -> None:
    x, _ = digits(50)
    s = affinity(x, 4, 3.0, chunk=chunk).toarray()
    np.testing.assert_allclose(s, naive_affinity(x.double().numpy(), 4, 3.0), atol=1e-5)
    np.testing.assert_allclose(s, s.T, atol=1e-12)
    assert (np.diag(s) == 0).all()


def test_propagation_tends_to_the_closed_form() -> None:
    """F = (1 - alpha) (I - alpha S)^-1 Y (Zhou et al. 2004, eq. 3), rows scaled to 1."""
    x, y = digits(80)
    seeds = torch.cat([torch.nonzero(y == k).flatten()[:2] for k in range(10)])
    s = affinity(x, 5, 3.0)
    p = LabelPropagation(alpha=0.8, iterations=200).propagate(s, seeds, y[seeds], 10)
    start = np.zeros((80, 10))
    start[seeds, y[seeds]] = 0.5  # two of each class: a total of 1
    f = 0.2 * np.linalg.solve(np.eye(80) - 0.8 * s.toarray(), start)
    expected = f / f.sum(1, keepdims=True)
    expected[seeds] = np.eye(10)[y[seeds]]
    np.testing.assert_allclose(p.numpy(), expected, atol=1e-5)
    right = (p.argmax(1) == y).float().mean()
    assert right > 0.8


def test_propagation_by_a_dense_loop_at_few_iterations() -> None:
    x, y = digits(40)
    seeds = torch.arange(12)
    s = affinity(x, 5, 3.0)
    p = LabelPropagation(alpha=0.9, iterations=3).propagate(s, seeds, y[:12], 10)
    start = np.zeros((40, 10))
    for i in range(12):
        start[i, y[i]] = 1 / int((y[:12] == y[i]).sum())
    f = start
    for _ in range(3):
        f = 0.9 * s.toarray() @ f + 0.1 * start
    for i in range(12, 40):
        expected = f[i] / f[i].sum() if f[i].sum() > 0 else np.full(10, 0.1)
        np.testing.assert_allclose(p[i].numpy(), expected, atol=1e-6)


def test_a_picture_that_no_label_reaches_is_undecided() -> None:
    x = torch.eye(4)[[0, 0, 1, 1, 2, 2]]
    p = LabelPropagation(neighbours=1).propagate(
        affinity(x, 1, 3.0), torch.tensor([0, 2]), torch.tensor([0, 1]), 2
    )
    np.testing.assert_allclose(p.numpy(), [[1, 0], [1, 0], [0, 1], [0, 1], [0.5, 0.5], [0.5, 0.5]])


def test_what_is_left_out_does_not_reach_the_head() -> None:
    x, y = digits(80)
    seeds, out = torch.arange(20), torch.zeros(80, dtype=torch.bool)
    out[50:] = True
    method, graph = LabelPropagation(), affinity(x, 10, 3.0)
    head = method.fit(x, seeds, y[:20], 10, graph=graph, leave_out=out)
    other = x.clone()
    other[50:] = torch.randn(30, 64)  # whatever these are, the same head comes out
    again = method.fit(other, seeds, y[:20], 10, graph=graph, leave_out=out)
    assert torch.equal(head.weight, again.weight)
    assert torch.equal(head.bias, again.bias)
    assert not torch.equal(method.fit(x, seeds, y[:20], 10, graph=graph).weight, head.weight)


def test_keep_takes_the_surest_of_each_class_and_every_seed() -> None:
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.2, 0.8], [0.45, 0.55], [0.51, 0.49]])
    target, weight = LabelPropagation(keep=0.5).targets(p, torch.tensor([5]))
    assert weight.tolist() == [1, 0, 1, 1, 0, 1]
    assert target.argmax(1).tolist() == [0, 0, 0, 1, 1, 0]
