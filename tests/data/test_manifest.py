"""Layouts, names, messages: what a folder becomes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handful.data.manifest import (
    FOLDER_NAMES,
    LABELLED,
    TEST,
    UNLABELLED,
    VALIDATION,
    Manifest,
    read_folder,
    read_pile,
)
from handful.types import UsageError


def plant(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_class_folders_beside_the_unlabelled_pile(tmp_path: Path) -> None:
    m = read_folder(plant(tmp_path, "tulip/2.jpg", "rose/1.png", "rose/deep/3.JPG", "unlabeled/9.webp"))
    assert m.classes == ("rose", "tulip")
    assert dict(zip(m.paths, m.labels.tolist())) == {
        "rose/1.png": 0, "rose/deep/3.JPG": 0, "tulip/2.jpg": 1, "unlabeled/9.webp": -1,
    }  # fmt: skip
    assert [m.paths[i] for i in m.ids(UNLABELLED)] == ["unlabeled/9.webp"]
    assert m.counts()["rose"] == {"labelled": 2, "unlabelled": 0, "validation": 0, "test": 0}
    assert m.counts()[""]["unlabelled"] == 1


def test_parts_with_class_folders(tmp_path: Path) -> None:
    m = read_folder(
        plant(tmp_path, "train/b/1.jpg", "train/a/1.jpg", "val/a/2.jpg", "test/b/3.jpg", "unlabeled/4.jpg")
    )
    assert m.classes == ("a", "b")
    table = {path: (int(k), str(split)) for path, k, split in zip(m.paths, m.labels, m.splits)}
    assert table == {
        "train/a/1.jpg": (0, LABELLED), "train/b/1.jpg": (1, LABELLED), "val/a/2.jpg": (0, VALIDATION),
        "test/b/3.jpg": (1, TEST), "unlabeled/4.jpg": (-1, UNLABELLED),
    }  # fmt: skip


@pytest.mark.parametrize("name", [*FOLDER_NAMES, "Unlabeled", "TEST"])
def test_other_names_of_parts(tmp_path: Path, name: str) -> None:
    split = FOLDER_NAMES[name.lower()]
    base = ("a/1.jpg", "b/1.jpg") if split != LABELLED else (f"{name}/b/1.jpg",)
    m = read_folder(plant(tmp_path, *base, f"{name}/a/2.jpg"))
    assert next(m.paths[i] for i in m.ids(split)) == f"{name}/a/2.jpg"


def test_what_is_not_a_picture_is_not_read(tmp_path: Path) -> None:
    m = read_folder(plant(tmp_path, "a/1.jpg", "b/1.jpg", "a/notes.txt", "a/.hidden.jpg", ".git/x/1.jpg"))
    assert m.paths == ("a/1.jpg", "b/1.jpg")


def test_loose_pictures_beside_class_folders_are_unlabelled(tmp_path: Path) -> None:
    m = read_folder(
        plant(tmp_path, "rose/1.jpg", "tulip/1.jpg", "2.jpg", "3.PNG", "notes.txt", "unlabeled/4.jpg")
    )
    assert [m.paths[i] for i in m.ids(UNLABELLED)] == ["unlabeled/4.jpg", "2.jpg", "3.PNG"]
    assert m.classes == ("rose", "tulip")
    m = read_folder(plant(tmp_path / "parts", "train/a/1.jpg", "train/b/1.jpg", "train/2.jpg", "5.jpg"))
    assert [m.paths[i] for i in m.ids(UNLABELLED)] == ["train/2.jpg", "5.jpg"]


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    plant(
        tmp_path, "a/1.jpg", "b/1.jpg", "a/2.HEIC", "a/3.heic", "test/loose.jpg", "test/a/4.jpg", "b/raw.nef"
    )
    os.symlink("nothing", tmp_path / "a" / "broken.jpg")
    os.symlink("self.jpg", tmp_path / "a" / "self.jpg")
    os.symlink(tmp_path, tmp_path / "again")
    os.symlink("loop", tmp_path / "loop")
    os.mkfifo(tmp_path / "b" / "pipe.jpg")
    m = read_folder(tmp_path)
    assert m.classes == ("a", "b")
    assert set(m.paths) == {"a/1.jpg", "b/1.jpg", "test/a/4.jpg"}
    reasons = {note.file: note.reason for note in m.notes}
    assert reasons.keys() == {"again", "a/broken.jpg", "a/self.jpg", "b/pipe.jpg", "a", "b", "test/loose.jpg"}
    assert "2 .heic files" in reasons["a"] and "1 .nef file," in reasons["b"]
    assert "link back" in reasons["again"]
    assert "no class folder" in reasons["test/loose.jpg"]
    assert all(note.suggestion for note in m.notes)


def test_a_class_folder_may_be_a_link_to_elsewhere(tmp_path: Path) -> None:
    plant(tmp_path, "shelf/1.jpg", "data/a/1.jpg")
    os.symlink(tmp_path / "shelf", tmp_path / "data" / "b")
    m = read_folder(tmp_path / "data")
    assert (m.classes, m.paths, m.notes) == (("a", "b"), ("a/1.jpg", "b/1.jpg"), ())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is closed to the administrator")
def test_a_closed_folder_is_noted(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg", "b/1.jpg", "b/closed/2.jpg")
    (tmp_path / "b/closed").chmod(0)
    notes = read_folder(tmp_path).notes
    (tmp_path / "b/closed").chmod(0o755)
    assert [note.file for note in notes] == ["b/closed"]


def test_a_folder_that_cannot_be_opened_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "a/1.jpg", "b/1.jpg", "b/closed/2.jpg")
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    m = read_folder(tmp_path)
    assert [(note.file, "Permission denied" in note.reason) for note in m.notes] == [("b/closed", True)]
    assert m.paths == ("a/1.jpg", "b/1.jpg")


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="other systems want names in UTF-8")
def test_names_that_are_not_utf8_and_very_long_ones(tmp_path: Path) -> None:
    odd, long = os.fsdecode(b"caf\xe9"), "n" * 240
    m = read_folder(plant(tmp_path, f"{odd}/{odd}.jpg", f"{long}/{long}.jpg"))
    assert m.classes == ("caf\\xe9", long)
    assert set(m.paths) == {f"{odd}/{odd}.jpg", f"{long}/{long}.jpg"}
    assert all((tmp_path / path).exists() for path in m.paths)


def test_one_folder_too_high_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only one class") as caught:
        read_folder(plant(tmp_path, "photos/rose/1.jpg", "photos/tulip/1.jpg"))
    assert caught.value.fix == f"did you mean {tmp_path / 'photos'}?"


def test_a_table_beside_the_only_folder_is_guessed(tmp_path: Path) -> None:
    plant(tmp_path, "pics/1.jpg", "list.csv")
    with pytest.raises(UsageError, match="only one class") as caught:
        read_folder(tmp_path)
    assert f"did you mean {tmp_path / 'list.csv'}?" in caught.value.fix


def test_folders_of_the_system_are_no_classes(tmp_path: Path) -> None:
    plant(
        tmp_path,
        "a/1.jpg",
        "b/1.jpg",
        "__MACOSX/a/._1.jpg",
        "a/@eaDir/thumb.jpg",
        "a/Thumbs.db",
        ".git/x.jpg",
    )
    (tmp_path / "$RECYCLE.BIN").mkdir()
    m = read_folder(tmp_path)
    assert (m.classes, m.paths) == (("a", "b"), ("a/1.jpg", "b/1.jpg"))


def test_hidden_folders_inside_a_class_hold_none_of_its_pictures(tmp_path: Path) -> None:
    for name in (
        "cat/1.png",
        "dog/1.png",
        "cat/.thumbnails/1.png",
        "dog/a/.ipynb_checkpoints/1.png",
        "dog/a/2.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    assert sorted(read_folder(tmp_path).paths) == ["cat/1.png", "dog/1.png", "dog/a/2.png"]


def test_a_file_that_goes_while_the_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "a/1.jpg", "b/1.jpg")
    whole = read_folder(tmp_path).fingerprint
    monkeypatch.setattr(os.path, "isfile", lambda path: True)
    os.symlink("nothing", tmp_path / "a" / "2.jpg")
    m = read_folder(tmp_path)
    assert "a/2.jpg" in m.paths and m.fingerprint != whole


def test_a_pile_without_classes(tmp_path: Path) -> None:
    m = read_pile(plant(tmp_path, "1.jpg", "deep/2.jpg"))
    assert (m.classes, m.paths, m.labels.tolist()) == ((), ("1.jpg", "deep/2.jpg"), [-1, -1])
    assert m.counts()[""]["unlabelled"] == 2
    with pytest.raises(UsageError, match="holds no pictures"):
        read_pile(plant(tmp_path / "x", "notes.txt"))
    with pytest.raises(UsageError, match="no such folder"):
        read_pile(tmp_path / "y")


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg", "b/1.jpg")
    os.symlink(tmp_path / "a", tmp_path / "a" / "again")
    assert read_folder(tmp_path).paths == ("a/1.jpg", "b/1.jpg")


@pytest.mark.parametrize(
    ("names", "message", "fix"),
    [
        ((), "holds no pictures", "DIR/<class>/picture.jpg"),
        (("a/x.txt",), "holds no pictures", "DIR/<class>/picture.jpg"),
        (("unlabeled/1.jpg",), "nothing is labelled", "DIR/<class>/picture.jpg"),
        (("a/1.jpg", "unlabeled/1.jpg"), "has only one class (a)", "a second class"),
        (
            ("train/a/1.jpg", "train/b/1.jpg", "c/1.jpg"),
            "both train/ and class folders beside it (c)",
            "move",
        ),
        (
            ("rose/1.jpg", "tulip/1.jpg", "val/roses/1.jpg"),
            "class 'roses' is not among",
            "did you mean 'rose'?",
        ),
        (
            ("rose/1.jpg", "tulip/1.jpg", "test/zzz/1.jpg"),
            "class 'zzz' is not among",
            "add labelled pictures",
        ),
    ],
)
def test_each_mistake_has_its_message(tmp_path: Path, names: tuple[str, ...], message: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_folder(plant(tmp_path, *names))
    assert message in caught.value.reason
    assert fix in caught.value.fix
    assert str(tmp_path) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["missing", "file.jpg"])
def test_no_folder(tmp_path: Path, name: str) -> None:
    plant(tmp_path, "file.jpg")
    with pytest.raises(UsageError, match="there is no such folder") as caught:
        read_folder(tmp_path / name)
    assert caught.value.exit_code == 2


def test_the_fingerprint_changes_with_the_data_and_only_with_them(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg", "b/1.jpg", "unlabeled/1.jpg")
    seen = [read_folder(tmp_path).fingerprint]
    assert read_folder(tmp_path).fingerprint == seen[0]
    plant(tmp_path, "a/notes.txt")
    assert read_folder(tmp_path).fingerprint == seen[0]
    (tmp_path / "a/1.jpg").write_bytes(b"longer")
    seen.append(read_folder(tmp_path).fingerprint)
    os.utime(tmp_path / "a/1.jpg", ns=(1, 1))
    seen.append(read_folder(tmp_path).fingerprint)
    (tmp_path / "b/1.jpg").rename(tmp_path / "b/2.jpg")
    seen.append(read_folder(tmp_path).fingerprint)
    (tmp_path / "unlabeled/1.jpg").rename(tmp_path / "a/3.jpg")
    seen.append(read_folder(tmp_path).fingerprint)
    assert len(set(seen)) == len(seen) == 5


def test_keep_leaves_classes_as_they_are(tmp_path: Path) -> None:
    m = read_folder(plant(tmp_path, "a/1.jpg", "b/1.jpg", "c/1.jpg"))
    kept = m.keep(np.array([True, False, True]))
    assert (kept.classes, kept.paths, kept.labels.tolist()) == (m.classes, ("a/1.jpg", "c/1.jpg"), [0, 2])
    assert len(kept) == 2


words = st.text("abcXYZé ß0", min_size=1, max_size=5).filter(
    lambda s: s.strip() == s and s.lower() not in FOLDER_NAMES
)


@settings(max_examples=30, deadline=None)
@given(classes=st.sets(words, min_size=2, max_size=5), n=st.integers(1, 3))
def test_any_class_names_come_back_sorted_and_numbered(
    tmp_path_factory: pytest.TempPathFactory, classes: set[str], n: int
) -> None:
    root = tmp_path_factory.mktemp("names")
    plant(root, *(f"{name}/{i}.jpg" for name in classes for i in range(n)))
    m = read_folder(root)
    assert m.classes == tuple(sorted(classes))
    assert [path.split("/")[0] for path in m.paths] == [m.classes[k] for k in m.labels]
    assert len(m) == n * len(classes)


@settings(max_examples=300, deadline=None)
@given(
    files=st.lists(
        st.tuples(
            st.lists(
                st.sampled_from(["a", "b", "A", "train", "val", "Test", "unlabeled", ".x", "ü"]), max_size=3
            ),
            st.sampled_from(["1.jpg", "2.PNG", "notes.txt", ".hidden.jpg", "3.heic"]),
        ),
        max_size=8,
    )
)
def test_any_layout_is_read_or_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[list[str], str]]
) -> None:
    root = tmp_path_factory.mktemp("layout")
    names = {"/".join([*parts, name]) for parts, name in files}
    plant(root, *names)
    found = read_or_refuse(root)
    if isinstance(found, UsageError):
        assert str(root) in str(found.file) and found.reason and found.fix
        return
    assert len(found.classes) >= 2 and list(found.classes) == sorted(found.classes)
    assert set(found.paths) <= names and len(set(found.paths)) == len(found.paths)
    assert all(path.lower().endswith((".jpg", ".png")) for path in found.paths)
    known = found.splits != UNLABELLED
    assert ((found.labels >= 0) == known).all()
    for path, k in zip(found.paths, found.labels):
        assert k < 0 or found.classes[k] in path.split("/")


def read_or_refuse(root: Path) -> Manifest | UsageError:
    try:
        return read_folder(root)
    except UsageError as error:
        return error
