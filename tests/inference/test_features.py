"""Feature extraction: the pipeline by hand, backends against eager, the cache against damage."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from handful.inference import features
from handful.inference.backends import BACKENDS, missing, prepare
from handful.inference.features import extract
from handful.models.backbones import create
from handful.types import HandfulError, InputSpec, UsageError


class Pictures:
    """Random smooth pictures in memory; counts how often it is read."""

    def __init__(self, n: int, channels: int = 3, size: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randint(0, 256, (n, channels, 4, 4), generator=generator, dtype=torch.uint8)
        self.x = coarse.repeat_interleave(size // 4, 2).repeat_interleave(size // 4, 3)
        self.reads = 0

    def __len__(self) -> int:
        return len(self.x)

    def take(self, ids: Tensor) -> Tensor:
        self.reads += 1
        return self.x[ids]


def by_hand(net: torch.nn.Module, x: Tensor) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (net.spec.mean, net.spec.std))
    with torch.no_grad():
        return net.eval()((x / 255 - mean) / std).features


@pytest.mark.parametrize("name", list(BACKENDS))
def test_every_backend_and_the_mirror(name: str) -> None:
    if missing(name):
        pytest.skip(f"{missing(name)} not installed")
    net, images = create("small-resnet", n_classes=3, size=32, seed=0), Pictures(21)
    got = extract(net, images, backend=name, mirror=True, batch=8)
    assert got.backend == name
    assert net.training  # as it was
    expected = (by_hand(net, images.x) + by_hand(net, images.x.flip(3))) / 2
    assert torch.nn.functional.cosine_similarity(got.values, expected).min() > 0.99
    if name == "torch-eager-fp32":
        torch.testing.assert_close(got.values, expected, rtol=1e-4, atol=1e-5)


def test_gray_is_repeated_and_sizes_resized() -> None:
    generator = torch.Generator().manual_seed(0)
    # Values from the middle: overshoot is cut between PIL's two passes, and elsewhere in torch.
    x = torch.randint(80, 176, (3, 1, 40, 28), generator=generator, dtype=torch.uint8)
    for size in (20, 64):
        got = prepare(x, InputSpec(size))
        assert got.shape == (3, 3, size, size)
        assert got.dtype == torch.uint8
        for picture, gray in zip(got, x):
            pil = np.asarray(Image.fromarray(gray[0].numpy()).resize((size, size), Image.Resampling.BICUBIC))
            assert np.abs(picture.numpy().astype(int) - pil[None].astype(int)).max() <= 1
    same = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert prepare(same, InputSpec(8)) is same
    with pytest.raises(UsageError, match="wants 1 channels"):
        prepare(same, InputSpec(8, 1, (0.5,), (0.5,)))


def test_auto_falls_back_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("no such instruction")

    def wrong(*_: object) -> object:
        return lambda feed, out: out.copy_(torch.randn(out.shape))

    monkeypatch.setitem(BACKENDS, "torch", BACKENDS["torch"]._replace(start=broken))
    monkeypatch.setitem(BACKENDS, "onnxruntime", BACKENDS["onnxruntime"]._replace(start=wrong, needs=()))
    monkeypatch.setattr(features, "order", lambda _: ["torch", "onnxruntime", "torch-eager-fp32"])
    net, images = create("lenet", size=32, seed=0), Pictures(5)
    with caplog.at_level(logging.INFO):
        got = extract(net, images)
    assert got.backend == "torch-eager-fp32"
    assert "RuntimeError: no such instruction" in caplog.text
    assert "other features than fp32 eager" in caplog.text
    with pytest.raises(HandfulError, match="no such instruction"):
        extract(net, images, backend="torch")


def test_wrong_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = create("lenet", size=32), Pictures(2)
    with pytest.raises(UsageError, match="no backend 'torsch'"):
        extract(net, images, backend="torsch")
    monkeypatch.setitem(BACKENDS, "openvino", BACKENDS["openvino"]._replace(needs=("not_there",)))
    with pytest.raises(UsageError, match="needs not_there"):
        extract(net, images, backend="openvino")
    with pytest.raises(UsageError, match="no pictures"):
        extract(net, Pictures(0))


def test_cache_is_read_and_depends_on_everything(tmp_path: Path) -> None:
    net, images = create("lenet", size=32, seed=0), Pictures(9)

    def get(net=net, images=images, **options: object) -> Tensor:
        options = {"key": "a", "mirror": False, "backend": "torch-eager-fp32"} | options
        return extract(net, images, cache=tmp_path, **options).values

    first = get()
    reads = images.reads
    again = get()
    assert images.reads == reads
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    again += 1  # private to this process
    torch.testing.assert_close(get(), first, rtol=0, atol=0)
    get(mirror=True)
    get(key="b")
    get(net=create("lenet", size=32, seed=1))
    other = create("lenet", size=32, seed=0)
    other.spec = net.spec._replace(mean=(0.4, 0.4, 0.4))
    get(net=other)
    get(backend="torch")
    files = list(tmp_path.glob("features-*.npy"))
    assert len(files) == 6
    assert len(list(tmp_path.iterdir())) == 6  # nothing temporary is left
    assert np.load(files[0]).shape == (9, 84)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_damaged_files_are_computed_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    net, images = create("lenet", size=32, seed=0), Pictures(9)

    def get() -> Tensor:
        return extract(net, images, key="a", cache=tmp_path, backend="torch-eager-fp32").values

    first = get().clone()
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[200] ^= damage == "flip"
    file.write_bytes({"truncate": content[:-900], "flip": content, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(get(), first, rtol=0, atol=0)
    assert "damaged" in caplog.text
    torch.testing.assert_close(get(), first, rtol=0, atol=0)


def test_progress_counts_both_passes() -> None:
    seen: list[tuple[int, int]] = []
    extract(create("lenet", size=32), Pictures(9), backend="torch", batch=4, mirror=True,
            progress=lambda done, todo: seen.append((done, todo)))  # fmt: skip
    assert seen == [(4, 18), (8, 18), (9, 18), (13, 18), (17, 18), (18, 18)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda() -> None:
    net, images = create("small-resnet", size=32, seed=0), Pictures(9)
    expected = by_hand(net, images.x)
    got = extract(net.cuda(), images)
    assert torch.nn.functional.cosine_similarity(got.values, expected).min() > 0.99
