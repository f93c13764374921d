"""The uint8 store: what is decoded, what is refused, and what a kill or a second process may not break."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handful.data import images as module
from handful.data.images import decode, from_array, open_store
from handful.data.manifest import read_folder
from handful.types import HandfulError, UsageError

RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 220, 20), (20, 20, 220), (250, 250, 250)


def quarters(side: int = 32) -> np.ndarray:
    """Four colours, so that every turn and mirror image looks different: uint8 [S, S, 3]."""
    x = np.zeros((side, side, 3), np.uint8)
    half = side // 2
    x[:half, :half], x[:half, half:], x[half:, :half], x[half:, half:] = RED, GREEN, BLUE, WHITE
    return x


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three noisy pictures and two unlabelled ones, 20 px wide and 16 px high."""
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    for name in ("a/0", "a/1", "a/2", "b/0", "b/1", "b/2", "unlabeled/0", "unlabeled/1"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(root / f"{name}.png")
    return root


def hashes(root: Path) -> dict[str, tuple[str, int]]:
    return {
        str(p.relative_to(root)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def test_the_store_holds_the_pictures_and_leaves_the_folder_alone(folder: Path, tmp_path: Path) -> None:
    before = hashes(folder)
    told: list[tuple[int, int]] = []
    store, manifest, problems = open_store(
        read_folder(folder), tmp_path / "cache", progress=lambda done, n: told.append((done, n))
    )
    assert hashes(folder) == before
    assert problems == []
    assert told[-1] == (8, 8)
    assert (len(store), store.channels, store.side) == (8, 3, 16)
    for i, path in enumerate(manifest.paths):
        with Image.open(folder / path) as picture:
            middle = np.asarray(picture)[:, 2:18].transpose(2, 0, 1)  # shorter side fits: only a cut
        assert np.array_equal(store.take(torch.tensor([i]))[0].numpy(), middle)
    assert list(store.names) == list(manifest.paths)


def test_a_second_opening_decodes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, _ = open_store(read_folder(folder), tmp_path / "cache")
    monkeypatch.setattr(module, "decode", lambda *a: pytest.fail("decoded again"))
    second, _, _ = open_store(read_folder(folder), tmp_path / "cache")
    assert torch.equal(first.data, second.data)
    assert first.fingerprint == second.fingerprint
    monkeypatch.undo()
    Image.fromarray(quarters(16)).save(folder / "a/9.png")
    third, _, _ = open_store(read_folder(folder), tmp_path / "cache")
    assert len(third) == 9
    assert third.fingerprint != first.fingerprint


def test_some_of_the_pictures_are_not_taken_for_the_first_ones(folder: Path, tmp_path: Path) -> None:
    """The store of all of them is there already; the last picture alone is the last of it, not the first."""
    everything = read_folder(folder)
    store, _, _ = open_store(everything, tmp_path / "cache")
    last = everything.keep(np.arange(len(everything)) == len(everything) - 1)
    alone, kept, _ = open_store(last, tmp_path / "cache", side=store.side)
    assert kept.paths == everything.paths[-1:]
    assert alone.take(torch.tensor([0])).equal(store.take(torch.tensor([len(everything) - 1])))
    assert not alone.take(torch.tensor([0])).equal(store.take(torch.tensor([0])))
    assert everything.keep(np.ones(len(everything), bool)).fingerprint == everything.fingerprint


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_orientation_is_obeyed(tmp_path: Path, orientation: int) -> None:
    x = quarters()
    stored = {  # what a camera stores for the upright picture x, by EXIF tag 274
        1: x, 2: x[:, ::-1], 3: x[::-1, ::-1], 4: x[::-1], 5: x.transpose(1, 0, 2),
        6: np.rot90(x), 7: x[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(x, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "x.png", 3, 32), x.transpose(2, 0, 1))


def test_kinds_of_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    gray[0, 0] = 255
    path = tmp_path / "x.png"

    Image.fromarray(gray).save(path)
    assert np.array_equal(decode(path, 1, 16)[0], gray)
    assert np.array_equal(decode(path, 3, 16), np.stack([gray] * 3))

    Image.fromarray(gray.astype(np.uint16) * 257).save(path)  # 16 bits: 65535 is white
    with Image.open(path) as picture:
        assert picture.mode.startswith("I")
    assert np.array_equal(decode(path, 1, 16)[0], gray)

    colour = quarters(16)
    Image.fromarray(colour).quantize(4).save(path)
    with Image.open(path) as picture:
        assert picture.mode == "P"
    assert np.abs(decode(path, 3, 16).astype(int) - colour.transpose(2, 0, 1)).max() <= 2

    luma = colour @ np.array([0.299, 0.587, 0.114])
    Image.fromarray(colour).save(path)
    assert np.abs(decode(path, 1, 16)[0] - luma).max() <= 1

    alpha = np.full((16, 16, 1), 255, np.uint8)
    alpha[:8] = 0
    Image.fromarray(np.concatenate([colour, alpha], 2)).save(path)
    out = decode(path, 3, 16)
    assert (out[:, :8] == 255).all(), "transparent pixels are white"
    assert np.array_equal(out[:, 8:], colour.transpose(2, 0, 1)[:, 8:])

    Image.fromarray(gray > 127).save(path)
    assert np.array_equal(decode(path, 1, 16)[0], np.where(gray > 127, 255, 0))

    Image.fromarray(colour).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    assert decode(tmp_path / "x.jpg", 3, 16).shape == (3, 16, 16)


def test_animated_pictures_give_their_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(quarters(16), 8 * k, axis=1)) for k in range(3)]
    for kind, loss in (("gif", 2), ("webp", 8), ("png", 0), ("tiff", 0)):
        path = tmp_path / f"x.{kind}"
        options = {"lossless": True} if kind == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        with Image.open(path) as picture:
            assert getattr(picture, "n_frames", 1) == 3, kind
        difference = np.abs(decode(path, 3, 16).astype(int) - quarters(16).transpose(2, 0, 1))
        assert difference.max() <= loss, kind


def test_deep_and_printed_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    gray[0, :2] = 0, 255
    path = tmp_path / "x.tiff"
    for deep in (gray.astype(np.uint16) * 257, gray.astype(np.int32) * 70_000, gray / np.float32(255)):
        Image.fromarray(deep).save(path)
        assert np.abs(decode(path, 1, 16)[0].astype(int) - gray).max() <= 1, deep.dtype
    Image.fromarray(gray.astype(np.uint16)).save(path)  # 8-bit values in a 16-bit file
    assert np.array_equal(decode(path, 1, 16)[0], gray)
    broken = gray.astype(np.float32)
    broken[3, 3] = np.nan
    Image.fromarray(broken).save(path)
    assert decode(path, 1, 16)[0, 3, 3] == 0

    colour = Image.fromarray(quarters(16))
    inks = 255 - quarters(16).astype(int)  # by hand: no black ink, so that a channel is 255 - ink
    cmyk = np.concatenate([inks, np.zeros((16, 16, 1), int)], 2).astype(np.uint8)
    Image.frombytes("CMYK", (16, 16), cmyk.tobytes()).save(path)
    assert np.abs(decode(path, 3, 16).astype(int) - quarters(16).transpose(2, 0, 1)).max() <= 1
    colour.convert("LAB").save(path)
    assert decode(path, 3, 16).shape == (3, 16, 16)

    palette = colour.quantize(4)
    palette.info["transparency"] = int(np.asarray(palette)[0, 0])
    palette.save(tmp_path / "x.png", transparency=palette.info["transparency"])
    assert (decode(tmp_path / "x.png", 3, 16)[:, :8, :8] == 255).all(), "the transparent colour is white"


def bomb(path: Path, side: int = 30_000) -> None:
    """A PNG of side x side gray pixels in some hundred kilobytes."""
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    row = bytes(1 + side)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def test_a_decompression_bomb_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In less than a tenth of the time that decoding it takes."""
    bomb(tmp_path / "x.png", 9_000)
    assert (tmp_path / "x.png").stat().st_size < 100_000
    begin = time.perf_counter()
    with pytest.raises(ValueError, match="9000 x 9000 pixels is more"):
        decode(tmp_path / "x.png", 3, 32)
    refused = time.perf_counter()
    with monkeypatch.context() as patch:
        patch.setattr(module, "MAX_PIXELS", 10**9)
        decode(tmp_path / "x.png", 3, 32)
    assert refused - begin < (time.perf_counter() - refused) / 10
    head = (tmp_path / "x.png").read_bytes()
    import struct
    import zlib

    size = struct.pack(">II", 30_000, 30_000) + head[24:29]
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + size))
    (tmp_path / "x.png").write_bytes(head[:16] + size + crc + head[33:])
    with pytest.raises(ValueError, match="decompression bomb"):
        decode(tmp_path / "x.png", 3, 32)


def test_only_kinds_of_pictures_that_were_asked_for_are_opened(tmp_path: Path) -> None:
    """A .jpg that is PostScript would be given to another program."""
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(ValueError, match="cannot identify"):
        decode(tmp_path / "x.jpg", 3, 8)
    Image.fromarray(quarters()).save(tmp_path / "y.png")
    (tmp_path / "y.png").rename(tmp_path / "y.jpg")
    assert np.array_equal(decode(tmp_path / "y.jpg", 3, 32), quarters().transpose(2, 0, 1)), (
        "a PNG called .jpg"
    )


def test_pictures_that_are_no_files() -> None:
    x = quarters(16)
    assert np.array_equal(decode(x, 3, 16), x.transpose(2, 0, 1))
    picture = Image.fromarray(x)
    assert np.array_equal(decode(picture, 3, 16), x.transpose(2, 0, 1))
    picture.getexif()[274] = 3
    assert np.array_equal(decode(picture, 3, 16), x[::-1, ::-1].transpose(2, 0, 1))
    assert np.array_equal(np.asarray(picture), x), "the picture that was given is left as it was"
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode(None, 3, 16)


def test_resizing_equals_pillow_step_by_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (50, 80, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        expected = picture.resize((20, 20), Image.Resampling.BICUBIC, box=(15, 0, 65, 50))
    assert np.array_equal(decode(tmp_path / "x.png", 3, 20), np.asarray(expected).transpose(2, 0, 1))


def test_gray_folders_are_stored_in_one_channel_and_photographs_at_192_at_most(tmp_path: Path) -> None:
    for name, size in (("a/0", 300), ("b/0", 150)):
        (tmp_path / "x" / name).parent.mkdir(parents=True)
        Image.new("L", (size, size), 7).save(tmp_path / "x" / f"{name}.png")
    store, _, _ = open_store(read_folder(tmp_path / "x"), tmp_path / "cache")
    assert store.data.shape == (2, 1, 192, 192)  # the median shorter side is 225
    small, _, _ = open_store(read_folder(tmp_path / "x"), tmp_path / "cache", side=10)
    assert small.data.shape == (2, 1, 10, 10)
    assert (small.data == 7).all()


def test_broken_files_are_listed_and_left_out(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "a/0.png").read_bytes()
    (folder / "a/0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "a/empty.png").write_bytes(b"")
    (folder / "b/text.jpg").write_text("not a picture")
    (folder / "b/1.png").unlink()
    Image.new("1", (9000, 9000)).save(folder / "unlabeled/huge.png")
    manifest = read_folder(folder)
    store, kept, problems = open_store(manifest, tmp_path / "cache")
    assert [path for path, _ in problems] == ["a/0.png", "a/empty.png", "b/text.jpg", "unlabeled/huge.png"]
    reasons = dict(problems)
    assert "truncated" in reasons["a/0.png"]
    assert "cannot identify image file" in reasons["b/text.jpg"]
    assert "9000 x 9000 pixels" in reasons["unlabeled/huge.png"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    assert kept.paths == ("a/1.png", "a/2.png", "b/0.png", "b/2.png", "unlabeled/0.png", "unlabeled/1.png")
    assert kept.labels.tolist() == [0, 0, 1, 1, -1, -1]
    with Image.open(folder / "b/0.png") as picture:
        assert np.array_equal(store.data[2].numpy(), np.asarray(picture)[:, 2:18].transpose(2, 0, 1))


def test_nothing_readable_is_an_error_with_the_reason(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*.png"):
        path.write_text("no picture")
    with pytest.raises(HandfulError, match="none of the pictures looked at can be read"):
        open_store(read_folder(folder), tmp_path / "cache")
    assert not list((tmp_path).glob("cache/stores/*"))


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"]), data=st.data())
def test_no_damage_makes_the_decoder_raise_anything_but_a_reason(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / f"x.{kind}"
    Image.fromarray(quarters(16)).save(path, format=kind)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    reason, out = "", np.zeros((3, 8, 8), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow says what it skips
        try:
            out = decode(path, 3, 8)
        except ValueError as error:
            reason = str(error) or "no reason given"
    assert str(path.parent) not in reason
    assert reason != "no reason given"
    assert out.shape == (3, 8, 8)
    assert out.dtype == np.uint8


def test_an_error_while_building_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_store(read_folder(folder), tmp_path / "cache", progress=stop)
    assert list((tmp_path / "cache/stores").iterdir()) == []

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(HandfulError, match="the picture cache cannot be written") as caught:
            open_store(read_folder(folder), tmp_path / "cache")
    assert "HANDFUL_CACHE" in str(caught.value)
    assert list((tmp_path / "cache/stores").iterdir()) == []
    assert len(open_store(read_folder(folder), tmp_path / "cache")[0]) == 8


BUILD = """
import sys, time
from pathlib import Path
from handful.data.images import open_store
from handful.data.manifest import read_folder
folder, cache, wait = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def progress(done, total):
    (cache / f"began.{sys.argv[4]}").touch()
    time.sleep(wait)

print(open_store(read_folder(folder), cache, progress=progress)[0].data.sum().item())
"""


def builder(folder: Path, cache: Path, wait: float, name: str) -> subprocess.Popen[str]:
    cache.mkdir(exist_ok=True)
    command = [sys.executable, "-c", BUILD, str(folder), str(cache), str(wait), name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not come"
        time.sleep(0.02)


def test_a_kill_leaves_no_half_store_and_two_builders_do_not_harm_each_other(
    folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    killed = builder(folder, cache, 600, "killed")
    slow = builder(folder, cache, 2, "slow")
    wait_for(cache / "began.killed")
    wait_for(cache / "began.slow")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    scratch = {p.name.split(".")[-2] for p in (cache / "stores").glob("*.tmp")}
    assert scratch == {str(killed.pid), str(slow.pid)}
    store, _, _ = open_store(read_folder(folder), cache)  # overtakes the slow one, removes the dead one's
    assert str(killed.pid) not in {p.name.split(".")[-2] for p in (cache / "stores").glob("*.tmp")}
    told, _ = slow.communicate(timeout=60)
    assert slow.returncode == 0
    assert int(told) == int(store.data.sum())
    assert [p.name for p in (cache / "stores").iterdir()] == [store.fingerprint]


def test_a_scratch_folder_of_another_machine_is_left_alone_for_a_day(folder: Path, tmp_path: Path) -> None:
    """Process numbers mean nothing on another host or in another container that shares the cache."""
    stores = tmp_path / "cache" / "stores"
    whole, _, _ = open_store(read_folder(folder), tmp_path / "cache")
    theirs, old = (stores / f"{whole.fingerprint}.{host}.999999.tmp" for host in ("aaaaaaaa", "bbbbbbbb"))
    for place in (theirs, old):
        place.mkdir()
    os.utime(old, (0, time.time() - 2 * 86400))
    (stores / whole.fingerprint / "store.json").unlink()
    open_store(read_folder(folder), tmp_path / "cache")
    assert theirs.exists() and not old.exists()


@pytest.mark.parametrize("harm", ["no pixels", "short", "no json", "half a json"])
def test_a_store_that_is_not_whole_is_made_again(folder: Path, tmp_path: Path, harm: str) -> None:
    cache = tmp_path / "cache"
    whole, _, _ = open_store(read_folder(folder), cache)
    pixels, place = whole.data.clone(), cache / "stores" / whole.fingerprint
    if harm == "no pixels":
        (place / "images.u8").unlink()
    elif harm == "short":
        (place / "images.u8").write_bytes(b"x")
    else:
        (place / "store.json").unlink() if harm == "no json" else (place / "store.json").write_text('{"bad')
    again, _, _ = open_store(read_folder(folder), cache)
    assert torch.equal(again.data, pixels)


def test_what_could_not_be_read_once_is_tried_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(source: Path, channels: int, side: int) -> np.ndarray:
        if source.name == bad:
            raise ValueError("cannot be decoded (Input/output error)")
        return decode(source, channels, side)

    manifest = read_folder(folder)
    bad = Path(manifest.paths[0]).name
    n = sum(Path(path).name != bad for path in manifest.paths)
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", away)
        for _ in range(2):
            images, _, problems = open_store(manifest, tmp_path / "cache")
            assert (len(images), len(problems)) == (n, len(manifest) - n)
    images, _, problems = open_store(manifest, tmp_path / "cache")
    assert (len(images), problems) == (len(manifest), [])


def test_pictures_in_memory() -> None:
    x = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    images = from_array(x)
    assert images.data.shape == (2, 1, 4, 4)
    assert images.names[1] == "picture 1"
    assert len(images.names) == 2
    assert images.take(np.array([1, 0, 1]))[:, 0].tolist() == x[[1, 0, 1]].tolist()
    assert from_array(x).fingerprint == images.fingerprint != from_array(x + 1).fingerprint
    for bad in (x.astype(np.float32), x[0]):
        with pytest.raises(UsageError, match="pictures must be uint8"):
            from_array(bad)
