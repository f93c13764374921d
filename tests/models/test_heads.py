"""Heads against scikit-learn and closed forms, and rebuilt from their configuration."""

import json

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from handful.models.heads import (
    Centre,
    Chain,
    CosineHead,
    LinearHead,
    NearestMean,
    NearestNeighbours,
    NoHead,
    build_head,
)


def data(n: int, dim: int = 6, n_classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator), torch.arange(n) % n_classes


def test_neighbours_equal_scikit_learn() -> None:
    features, labels = data(60)
    queries, _ = data(33, seed=1)
    head = NearestNeighbours(6, 4, k=7, temperature=0.2, smoothing=0.01).fit(features, labels)
    reference = KNeighborsClassifier(
        7, metric="cosine", algorithm="brute", weights=lambda d: np.exp(-d / 0.2)
    ).fit(features.numpy(), labels.numpy())
    share = reference.predict_proba(queries.numpy())
    np.testing.assert_allclose(head(queries).exp().numpy(), 0.99 * share + 0.01 / 4, rtol=2e-4)
    head.CHUNK = 100  # one query at a time: the same answer
    np.testing.assert_allclose(head(queries).exp().numpy(), 0.99 * share + 0.01 / 4, rtol=2e-4)


def test_neighbours_need_examples() -> None:
    with pytest.raises(ValueError, match="fit"):
        NearestNeighbours(6, 4)(torch.randn(2, 6))


def test_nearest_mean_equals_scikit_learn() -> None:
    features, labels = data(40)
    queries, _ = data(50, seed=1)
    head = NearestMean(6, 4, metric="euclidean", scale=0.5).fit(features, labels)
    reference = NearestCentroid().fit(features.numpy(), labels.numpy())
    assert (head(queries).argmax(1).numpy() == reference.predict(queries.numpy())).all()
    distance = np.linalg.norm(queries.numpy()[:, None] - reference.centroids_[None], axis=2)
    np.testing.assert_allclose(head(queries).numpy(), -0.5 * distance**2, rtol=1e-4, atol=1e-4)


def test_nearest_mean_by_cosine_equals_a_loop() -> None:
    features, labels = data(40)
    query = torch.randn(6)
    head = NearestMean(6, 4, scale=3.0).fit(features, labels)
    for k in range(4):
        mean = sum(f / f.norm() for f, y in zip(features, labels) if y == k) / 10
        expected = 3.0 * torch.dot(query, mean) / (query.norm() * mean.norm())
        torch.testing.assert_close(head(query[None])[0, k], expected)


def test_nearest_mean_wants_every_class() -> None:
    with pytest.raises(ValueError, match="needs an example"):
        NearestMean(6, 5).fit(*data(40))


def test_cosine_head_ignores_lengths_and_centre_centres() -> None:
    torch.manual_seed(0)
    head, x = CosineHead(6, 4, scale=7.0), torch.randn(5, 6)
    torch.testing.assert_close(head(x), head(9 * x))
    torch.testing.assert_close(head(head.weight.detach()).diagonal(), torch.full((4,), 7.0))
    centred = Centre(6).fit(x)(x)
    torch.testing.assert_close(centred.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(centred[0], (x[0] - x.mean(0)) / (x[0] - x.mean(0)).norm())


def test_every_head_is_rebuilt_from_json() -> None:
    features, labels = data(40)
    heads = [
        NoHead(),
        LinearHead(6, 4, bias=False),
        CosineHead(6, 4, scale=3.0, learnable=False),
        CosineHead(6, 4, scale=3.0),
        NearestMean(6, 4, "euclidean", 2.0).fit(features, labels),
        NearestNeighbours(6, 4, k=3, temperature=0.5).fit(features, labels),
        Chain(Centre(6).fit(features), LinearHead(6, 4)),
    ]
    for head in heads:
        again = build_head(json.loads(json.dumps(head.config())))
        again.load_state_dict(head.state_dict())
        assert type(again) is type(head)
        assert again.config() == head.config()
        torch.testing.assert_close(again(features), head(features), rtol=0, atol=0)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="no head of kind 'liner'"):
        build_head({"kind": "liner"})
