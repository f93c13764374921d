"""The audit: what each planted problem is called, what is suggested, and the table it is written to."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.data.audit import ORDER, WORDS, alike, audit, in_order, in_short, save_issues, suspect_labels
from handful.data.images import open_store
from handful.data.manifest import Issue, read_folder
from handful.data.suspects import Suspects

RNG = np.random.default_rng(0)


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name, seed in (
        ("rose/1", 1), ("rose/2", 2), ("rose/3", 1), ("tulip/1", 4), ("tulip/2", 2), ("roze/1", 6), ("tulips/1", 7),
        ("tulips/2", 8), ("unlabeled/1", 4), ("test/rose/1", 1), ("test/tulip/9", 9), ("val/tulip/1", 9),
    ):  # fmt: skip
        picture(root / f"{name}.png", seed)
    (root / "rose/broken.png").write_bytes(b"x")
    return root


def test_every_planted_problem_is_named(folder: Path, tmp_path: Path) -> None:
    images, manifest, unreadable = open_store(read_folder(folder), tmp_path / "cache")
    issues = audit(manifest, images, unreadable)
    table = {(issue.kind, issue.file, issue.other) for issue in issues}
    assert table == {
        ("unreadable", "rose/broken.png", ""),
        ("copy", "rose/1.png", "rose/3.png"),
        ("conflict", "rose/2.png", "tulip/2.png"),
        ("copy", "tulip/1.png", "unlabeled/1.png"),
        ("leak", "rose/1.png", "test/rose/1.png"),
        ("leak", "test/tulip/9.png", "val/tulip/1.png"),
        ("name", "tulip", "tulips"),
        ("single", "roze", ""),
    }
    kinds = [issue.kind for issue in issues]
    assert kinds == sorted(kinds, key=ORDER.index)
    assert all(issue.reason and issue.suggestion for issue in issues)
    reasons = {issue.file: issue.reason for issue in issues if issue.kind == "conflict"}
    assert "'rose'" in reasons["rose/2.png"] and "'tulip'" in reasons["rose/2.png"]
    assert in_short(issues) == (
        "2 copies across splits, 1 picture with two labels, 1 unreadable file, 1 class name like another, "
        "1 class with one picture, 2 copies"
    )
    save_issues(issues, tmp_path / "issues.csv")
    with open(tmp_path / "issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["reason"]) for row in rows] == [(issue.file, issue.reason) for issue in issues]
    assert set(WORDS) == set(ORDER)


def test_good_data_have_no_problems(tmp_path: Path) -> None:
    for i, name in enumerate(("rose/1", "rose/2", "tulip/1", "tulip/2", "unlabeled/1", "test/rose/1")):
        picture(tmp_path / "x" / f"{name}.png", i)
    images, manifest, unreadable = open_store(read_folder(tmp_path / "x"), tmp_path / "cache")
    assert audit(manifest, images, unreadable) == []
    assert in_short([]) == ""


@pytest.mark.parametrize(
    ("a", "b"),
    [("rose", "Rose"), ("rose", "roses"), ("tulip", "tulp"), ("daffodil", "dafodil"), ("wild cat", "wild_cat"),
     ("sunflower", "sunflowr"), ("dandelion", "dandeloin"), ("daisies", "daizies")],
)  # fmt: skip
def test_typos(a: str, b: str) -> None:
    assert alike(a, b) and alike(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [("1", "2"), ("class1", "class2"), ("cat", "car"), ("boat", "coat"), ("rose", "tulip"), ("male", "female"),
     ("cougar_body", "cougar_face"), ("v10", "v100"), ("bus", "bug"), ("ant", "elephant")],
)  # fmt: skip
def test_other_names_are_no_typos(a: str, b: str) -> None:
    assert not alike(a, b) and not alike(b, a)


def test_suspects_become_issues_least_likely_first(folder: Path) -> None:
    manifest = read_folder(folder)
    rows = np.array([0, 1, 2])
    p = np.array([[0.9, 0.05, 0.03, 0.02], [0.1, 0.1, 0.7, 0.1], [0.001, 0.9, 0.05, 0.049]])
    found = suspect_labels(
        manifest, rows, np.array([0, 0, 0]), Suspects(p, np.array([False, True, True]), 0.02, 0.1)
    )
    assert [issue.file for issue in found] == [manifest.paths[2], manifest.paths[1]]
    assert f"say '{manifest.classes[1]}'" in found[0].reason and "2 % of right labels" in found[0].reason
    assert "(90 % against 0.1 %;" in found[0].reason and "(70 % against 10 %;" in found[1].reason


def test_order_keeps_what_came_first_within_a_kind() -> None:
    issues = [
        Issue(name, "r", "s", kind)
        for name, kind in (("a", "copy"), ("b", "leak"), ("c", "copy"), ("d", "leak"))
    ]
    assert [issue.file for issue in in_order(issues)] == ["b", "d", "a", "c"]
