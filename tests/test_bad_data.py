"""Bad data on the command line: message and exit code of each, and folders that change between two runs."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import handful.choose.auto as auto
from handful import api
from handful.cli import main as cli
from handful.data.sources import Arrays
from handful.recipes.task import Task
from handful.types import UsageError
from handful.verbs import fit as fitting


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    bright = 60 if "rose" in path.parts else 160
    Image.fromarray(rng.integers(bright, bright + 60, (12, 12, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """rose and tulip, three each; four unlabelled; a test part."""
    root = tmp_path / "photos"
    names = [f"{c}/{i}" for c in ("rose", "tulip") for i in range(3)] + [f"unlabeled/{i}" for i in range(4)]
    for seed, name in enumerate([*names, "test/rose/0", "test/tulip/0"]):
        picture(root / f"{name}.png", seed)
    return root


def fit(folder: Path, *words: str, out: str = "run") -> int:
    return cli.run(
        ["fit", str(folder), "--recipe", "nearest-mean", "--out", str(folder.parent / out), *words]
    )


def empty(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def no_classes(root: Path) -> None:
    shutil.rmtree(root / "rose")
    shutil.rmtree(root / "tulip")


def one_class(root: Path) -> None:
    shutil.rmtree(root / "tulip")


def near_typo(root: Path) -> None:
    picture(root / "val" / "rosse" / "1.png", 0)


def unknown_class(root: Path) -> None:
    picture(root / "val" / "zebra" / "1.png", 0)


def unreadable_class(root: Path) -> None:
    for path in (root / "tulip").iterdir():
        path.write_bytes(b"x")


def nothing_readable(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.write_bytes(b"")


def empty_class(root: Path) -> None:
    (root / "lily").mkdir()


@pytest.mark.parametrize(
    ("spoil", "code", "message", "fix"),
    [
        (empty, 2, "holds no pictures", "DIR/<class>/picture.jpg"),
        (no_classes, 2, "nothing is labelled", "DIR/<class>/picture.jpg"),
        (one_class, 2, "has only one class (rose)", "a second class"),
        (near_typo, 2, "class 'rosse' is not among the training classes", "did you mean 'rose'?"),
        (unknown_class, 2, "class 'zebra' is not among the training classes", "add labelled pictures of it"),
        (empty_class, 2, "class 'lily' holds no pictures", "put pictures"),
        (unreadable_class, 2, "class 'tulip' has no readable picture", "add one"),
        (nothing_readable, 1, "none of the pictures looked at can be read", "not empty"),
    ],
)
def test_folders_that_end_the_run(
    folder: Path,
    spoil: Callable[[Path], None],
    code: int,
    message: str,
    fix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(folder)
    assert fit(folder) == code
    told = capsys.readouterr().err
    assert message in told and fix in told.partition("Fix: ")[2]
    assert "Traceback" not in told and len(told) < 1500
    assert not (folder.parent / "run" / "model.safetensors").exists()


def test_a_class_without_a_readable_picture_leaves_the_list_of_files(folder: Path) -> None:
    unreadable_class(folder)
    assert fit(folder) == 2
    assert sum(row["file"].startswith("tulip/") for row in issues(folder)) == 3


def issues(folder: Path, out: str = "run") -> list[dict[str, str]]:
    with open(folder.parent / out / "issues.csv", newline="") as file:
        return list(csv.DictReader(file))


def single_picture(root: Path) -> None:
    for path in sorted((root / "tulip").iterdir())[1:]:
        path.unlink()


def nothing_unlabelled(root: Path) -> None:
    shutil.rmtree(root / "unlabeled")


def truncated(root: Path) -> None:
    whole = Image.open(root / "rose" / "0.png").resize((200, 200))
    whole.save(root / "rose" / "cut.jpg")
    content = (root / "rose" / "cut.jpg").read_bytes()
    (root / "rose" / "cut.jpg").write_bytes(content[: len(content) // 2])


def text_as_picture(root: Path) -> None:
    (root / "rose" / "notes.jpg").write_text("no picture")


def zero_bytes(root: Path) -> None:
    (root / "unlabeled" / "zero.jpg").write_bytes(b"")


def bomb(root: Path) -> None:
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(100_000))), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks
    )
    (root / "rose" / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def odd_but_good(root: Path) -> None:
    x = Image.open(root / "rose" / "0.png")
    x.save(root / "rose" / "moves.gif", save_all=True, append_images=[x.rotate(90)])
    x.convert("CMYK").save(root / "rose" / "print.jpg")
    Image.fromarray(np.asarray(x.convert("L")).astype(np.uint16) * 257).save(root / "rose" / "deep.png")


def links(root: Path) -> None:
    os.symlink(root, root / "again")
    os.symlink("nothing", root / "rose" / "lost.png")
    os.symlink(root / "rose", root / "rose" / "inner")


def odd_names(root: Path) -> None:
    if os.uname().sysname == "Linux":
        shutil.copy(root / "unlabeled" / "0.png", os.fsencode(root / "rose") + b"/caf\xe9.png")
        shutil.copy(root / "unlabeled" / "1.png", os.fsencode(root / "unlabeled") + b"/\xff\xfe.png")
    shutil.copy(root / "unlabeled" / "2.png", root / "tulip" / ("n" * 240 + ".png"))
    shutil.copy(root / "unlabeled" / "3.png", root / "tulip" / 'a "b", <c>.png')


@pytest.mark.parametrize(
    ("spoil", "listed"),
    [
        (single_picture, ["tulip: class with a single labelled picture"]),
        (nothing_unlabelled, []),
        (truncated, ["rose/cut.jpg: cannot be used: cannot be decoded (image file is truncated"]),
        (text_as_picture, ["rose/notes.jpg: cannot be used: cannot identify image file"]),
        (zero_bytes, ["unlabeled/zero.jpg: cannot be used: is empty (zero bytes)"]),
        (bomb, ["rose/bomb.png: cannot be used: "]),
        (odd_but_good, []),
        (links, ["again: is a link back", "rose/lost.png: is no file"]),
        (odd_names, []),
    ],
)
def test_folders_that_do_not_end_the_run(
    folder: Path, spoil: Callable[[Path], None], listed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(folder)
    before = state(folder)
    assert fit(folder) == 0
    assert state(folder) == before, "the folder of pictures is only read"
    told = capsys.readouterr()
    planted = [row for row in issues(folder) if "pixels as" not in row["reason"]]  # some were made by copying
    found = [f"{row['file']}: {row['reason']}" for row in planted if row["file"] != "unlabelled pictures"]
    assert len(found) == len(listed), found
    for start in listed:
        assert any(line.startswith(start) for line in found), found
    if spoil is nothing_unlabelled:
        assert "0 unlabelled" in told.err
    if listed:
        assert "issues.csv" in told.err


def state(root: Path) -> dict[str, tuple[str, int, int]]:
    return {
        str(p.relative_to(root)): (
            hashlib.sha256(p.read_bytes()).hexdigest(),
            p.stat().st_mtime_ns,
            p.stat().st_mode,
        )
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.is_symlink()
    } | {str(p.relative_to(root)): ("", 0, p.stat().st_mode) for p in root.rglob("*") if p.is_dir()}


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of another kind")
def test_a_read_only_folder_is_no_obstacle(folder: Path) -> None:
    """For the administrator the rights mean nothing, but the folder's state is looked at too."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = state(folder)
    assert fit(folder) == 0
    assert state(folder) == before
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_the_runs_folder_may_not_lie_among_the_pictures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["fit", str(folder), "--recipe", "knn", "--out", str(folder / "run")]) == 2
    told = capsys.readouterr().err
    assert "which is only read" in told and f"--out ../{folder.name}/run" in told
    assert cli.run(["compare", str(folder), "--out", str(folder / "run")]) == 2
    assert not (folder / "run").exists()


def test_a_table_in_the_working_folder_is_no_obstacle(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    lines = ["path,label"] + [f"{c}/{i}.png,{c}" for c in ("rose", "tulip") for i in range(3)]
    (folder / "labels.csv").write_text("\n".join([*lines, "unlabeled/0.png,"]))
    assert cli.run(["fit", "labels.csv", "--recipe", "nearest-mean"]) == 0
    assert "6 labelled, 1 unlabelled" in capsys.readouterr().err
    assert next((folder / "runs").iterdir()).name.startswith(f"{folder.name}-nearest-mean-")


def test_labels_per_class_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(folder, "--labels-per-class", "2", "--seed", "5") == 0
    assert "4 labelled, 6 unlabelled" in capsys.readouterr().err
    with open(folder.parent / "run" / "splits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["label"] for row in rows if row["split"] == "labelled") == [
        "rose",
        "rose",
        "tulip",
        "tulip",
    ]
    assert fit(folder, "--labels-per-class", "-2", out="other") == 2
    assert "cannot be kept" in capsys.readouterr().err


def test_a_folder_that_changes_between_two_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(folder) == 0
    picture(folder / "rose" / "new.png", 99)
    (folder / "tulip" / "1.png").unlink()
    capsys.readouterr()
    assert fit(folder) == 2
    told = capsys.readouterr().err
    assert "1 picture is new (rose/new.png); 1 picture is gone (tulip/1.png)" in told
    assert "Fix: choose another folder with --out" in told
    assert fit(folder, out="second") == 0
    picture(folder / "rose" / "new.png", 100)  # another picture under the same name
    assert fit(folder, out="second") == 2
    assert "other data" in capsys.readouterr().err


def test_a_resumed_run_obeys_the_splits_that_it_began_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the splits were saved; the draw would come out otherwise now."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = folder.parent / "run"
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "choose", stop)
        assert fit(folder, "--labels-per-class", "1") == 130
    lines = (out / "splits.csv").read_text().splitlines()
    was = next(line for line in lines if line.endswith(",labelled,rose"))
    other = next(f"rose/{i}.png,unlabelled," for i in range(3) if f"rose/{i}.png,unlabelled," in lines)
    swap = {
        was: was.replace("labelled,rose", "unlabelled,"),
        other: other.replace("unlabelled,", "labelled,rose"),
    }
    (out / "splits.csv").write_text("\n".join(swap.get(line, line) for line in lines) + "\n")
    seen: list[Task] = []
    choose = auto.choose

    def watch(task: Task, *rest: Any, **more: Any) -> Any:
        seen.append(task)
        return choose(task, *rest, **more)

    monkeypatch.setattr(fitting, "choose", watch)
    assert fit(folder, "--labels-per-class", "1") == 0
    labelled = {seen[0].images.names[i] for i in seen[0].labelled.tolist()}
    assert other.split(",")[0] in labelled and was.split(",")[0] not in labelled
    assert len(labelled) == 2


def test_arrays_from_python(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.array([0, 1] * 4 + [-1] * 6)
    x = np.where(np.arange(14)[:, None, None] % 2, 200, 50) + rng.integers(0, 20, (14, 8, 8))
    run = api.fit((x.astype(np.uint8), y), api.FitOptions(recipe="nearest-mean"), out=tmp_path / "a")
    with open(run.folder / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["label"]) for row in rows] == [(f"{i:06d}", str(i % 2)) for i in range(8, 14)]
    with pytest.raises(UsageError, match="nothing is labelled"):
        api.fit(Arrays(x.astype(np.uint8), [-1] * 14), out=tmp_path / "b")
    assert not (tmp_path / "b").exists()
