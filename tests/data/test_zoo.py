"""A zoo of broken pictures: no crash, every bad file listed, every good one used. The judge of what is bad is Pillow
itself, asked to load the whole file at once, without our limits, sizes or shortcuts."""

from __future__ import annotations

import csv
import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful import api
from handful.data.images import open_store
from handful.data.manifest import read_folder

SIDE = 24
PER_KIND = 70  # of 15 kinds


def animals() -> dict[str, bytes]:
    """One whole picture of each kind."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(
        (30, SIDE), Image.Resampling.BICUBIC
    )
    other = Image.fromarray(255 - np.asarray(smooth))
    kinds: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "baseline.jpg": (smooth, "JPEG", {"quality": 90}),
        "progressive.jpg": (smooth, "JPEG", {"progressive": True}),
        "gray.jpg": (smooth.convert("L"), "JPEG", {}),
        "cmyk.jpg": (smooth.convert("CMYK"), "JPEG", {}),
        "rgb.png": (smooth, "PNG", {}),
        "deep.png": (Image.fromarray(np.asarray(smooth.convert("L")).astype(np.uint16) * 257), "PNG", {}),
        "palette.png": (smooth.quantize(16), "PNG", {}),
        "alpha.png": (smooth.convert("RGBA"), "PNG", {}),
        "animated.gif": (smooth, "GIF", {"save_all": True, "append_images": [other]}),
        "animated.webp": (smooth, "WEBP", {"save_all": True, "append_images": [other]}),
        "plain.webp": (smooth, "WEBP", {"lossless": True}),
        "plain.bmp": (smooth, "BMP", {}),
        "plain.tif": (smooth, "TIFF", {}),
        "packed.tiff": (smooth, "TIFF", {"compression": "tiff_lzw"}),
        "plain.ppm": (smooth, "PPM", {}),
    }
    whole = {}
    for name, (picture, kind, options) in kinds.items():
        out = io.BytesIO()
        picture.save(out, kind, **options)
        whole[name] = out.getvalue()
    return whole


def mutant(content: bytes, number: int, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Bit flips, a truncation, a wrong header, a hole, or the tail of another file."""
    data = bytearray(content)
    match number % 5:
        case 0:
            for place in rng.integers(0, len(data), rng.integers(1, 9)):
                data[place] ^= 1 << int(rng.integers(0, 8))
        case 1:
            data = data[: int(rng.integers(0, len(data)))]
        case 2:
            data[: int(rng.integers(1, 16))] = rng.bytes(int(rng.integers(1, 16)))
        case 3:
            start = int(rng.integers(0, len(data)))
            data[start : start + int(rng.integers(1, 64))] = bytes(int(rng.integers(0, 64)))
        case 4:
            tail = others[int(rng.integers(0, len(others)))]
            data = data[: int(rng.integers(1, len(data)))] + tail[int(rng.integers(0, len(tail))) :]
    return bytes(data)


def loads(path: Path) -> bool:
    """Whether Pillow alone can load the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as picture:
                picture.load()
                picture.convert("RGBA" if picture.mode in ("P", "PA", "LA") else "RGB")
        except Exception:
            return False
    return True


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("zoo") / "zoo", np.random.default_rng(1)
    whole = animals()
    for place in ("cats", "dogs", "unlabeled"):
        (root / place).mkdir(parents=True)
        for name, content in whole.items():
            (root / place / f"good-{name}").write_bytes(content)
    others = list(whole.values())
    for name, content in whole.items():
        for number in range(PER_KIND):
            place = ("cats", "dogs", "unlabeled")[number % 3]
            (root / place / f"{number:02d}-{name}").write_bytes(mutant(content, number, rng, others))
    for name, content in (("empty.jpg", b""), ("text.jpg", b"no picture"), ("zeros.png", bytes(999))):
        (root / "cats" / name).write_bytes(content)
    return root


def hashes(root: Path) -> dict[str, tuple[str, int, int]]:
    return {
        str(p.relative_to(root)): (hashlib.sha256(p.read_bytes()).hexdigest(), s.st_mtime_ns, s.st_mode)
        for p in sorted(root.rglob("*"))
        if p.is_file() and (s := p.stat())
    }


def test_every_bad_file_is_listed_and_every_good_one_used(zoo: Path, tmp_path: Path) -> None:
    manifest = read_folder(zoo)
    assert len(manifest) == 15 * (PER_KIND + 3) + 3 and 15 * PER_KIND >= 1000
    expected = {path for path in manifest.paths if not loads(zoo / path)}
    assert 300 < len(expected) < 900, "a zoo of only bad, or only good, files proves nothing"
    store, kept, problems = open_store(manifest, tmp_path, side=16)
    assert {path for path, _ in problems} == expected
    assert all(reason and str(zoo) not in reason for _, reason in problems)
    assert set(kept.paths) == set(manifest.paths) - expected
    assert len(store) == len(kept)
    good = [i for i, path in enumerate(kept.paths) if "good-" in path]
    assert len(good) == 45
    for i in good:
        with Image.open(zoo / kept.paths[i]) as picture:
            if picture.mode.startswith("I"):
                values = np.asarray(picture) // 257
                picture = Image.fromarray(values.astype(np.uint8))
            plain = picture.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC, box=(3, 0, 27, SIDE))
        difference = np.abs(store.data[i].numpy().astype(int) - np.asarray(plain).transpose(2, 0, 1))
        assert difference.max() <= 3, kept.paths[i]


def test_a_run_on_the_zoo_ends_well_and_leaves_the_zoo_alone(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    before = hashes(zoo)
    run = api.fit(
        zoo, api.FitOptions(recipe="nearest-mean", features="pixels", side=16), out=tmp_path / "run"
    )
    assert hashes(zoo) == before
    with open(run.folder / "issues.csv", newline="") as file:
        issues = list(csv.DictReader(file))
    assert list(issues[0]) == ["file", "reason", "suggestion"]
    unusable = {row["file"] for row in issues if row["reason"].startswith("cannot be used")}
    assert unusable == {path for path in read_folder(zoo).paths if not loads(zoo / path)}
    assert all(row["suggestion"] for row in issues)
    with open(run.folder / "splits.csv", newline="") as file:
        splits = list(csv.DictReader(file))
    assert {row["path"] for row in splits} == set(read_folder(zoo).paths)
