"""The report's later sections: more labels, none of these, the data's problems, and what is said of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from handful.choose.auto import choose
from handful.data.images import from_array
from handful.data.manifest import Issue
from handful.recipes.candidate import Candidate
from handful.recipes.task import Task, Workshop
from handful.report import figures
from handful.report.page import render, verdict
from handful.report.record import Problem, Summary, Thumb, Tried
from handful.report.words import commands
from handful.run.summary import MOST_ISSUES, counts_by_class, show_issues
from handful.study.afterwards import accuracy_afterwards

CURVE = {
    "name": "regression (pixels)",
    "measured": [(1, 0.5), (2, 0.6), (4, 0.7)],
    "expected": [(4, 0.71, 0.6, 0.8), (8, 0.75, 0.6, 0.9)],
    "more": [(40, 0.04, -0.01, 0.08)],
    "advice": "40 more labels ≈ +4.0 points",
}


def found(file: str, kind: str = "copy", other: str = "") -> Issue:
    return Issue(file, "is a copy", "remove one", kind, other)


def points(svg: str, kind: str) -> list[tuple[float, float]]:
    """Corners of the first line or area of a class."""
    (found, *_) = re.findall(rf'class="{kind}" points="([^"]*)"', svg)
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found.split())]


def test_the_curve_is_on_a_logarithmic_axis_and_inside_its_band() -> None:
    svg = str(figures.own_curve(CURVE["measured"], CURVE["expected"]))  # type: ignore[arg-type]
    measured, dashed, band = points(svg, "c0 curve"), points(svg, "c1 curve"), points(svg, "band-fill")
    xs = [x for x, _ in measured]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)  # 1, 2, 4: equal steps
    ys = [y for _, y in measured]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2) and ys[0] > ys[2]  # 0.5, 0.6, 0.7, upwards
    assert dashed[0] == measured[-1] and len(dashed) == 3
    upper, lower = band[:2], band[:1:-1]
    for (_, y), (_, top), (_, bottom) in zip(dashed[1:], upper, lower):
        assert top < y < bottom
    assert figures.own_curve([], []) == ""


def test_the_page_shows_the_later_sections_and_escapes_them() -> None:
    picture = Thumb(np.zeros((1, 4, 4), np.uint8), caption="a/<b>.png")
    s = Summary(
        own_curve=CURVE,  # type: ignore[arg-type]
        issues=[Problem("a/<b>.png", "is a copy of <i>", "remove one", "copy", [picture])],
        n_issues={"copy": 31},
        reject={
            "threshold": 0.412,
            "right_answers": 36,
            "rule": "RULE.",
            "n_test": 50,
            "below": 7,
            "below_right": 3,
        },
        next_steps=["Run `handful predict <RUN>`"],
    )
    page = render(s)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "40 more labels ≈ +4.0 points" in text and "−1.0 to +8.0" in text
    assert "31 copies" in text and "The first 1 are shown" in text
    assert "&lt;b&gt;.png" in page and "<b>.png" not in page and "is a copy of &lt;i&gt;" in page
    assert "<code>handful predict &lt;RUN&gt;</code>" in page
    assert (
        "41.2" in text and "Of the 50 answers on the test part" in text and "7 fell below; 3 of these" in text
    )
    for anchor in re.findall(r'href="#(\w+)"', page):
        assert f'id="{anchor}"' in page
    assert Summary.from_json(s.to_json()) == s
    never = render(Summary(reject={"threshold": 0.0, "right_answers": 11, "rule": "RULE."}))
    assert "never answers “none of these”: 11 right answers" in never


def test_code_between_backticks() -> None:
    assert commands("a `b<c` d & e") == "a <code>b&lt;c</code> d &amp; e"
    assert commands("plain") == "plain"


def test_one_kind_of_problem_does_not_hide_the_others() -> None:
    images = from_array(np.zeros((3, 1, 8, 8), np.uint8), names=["x.png", "y.png", "z.png"])
    rows = torch.arange(3)
    task = Task(images, rows[:2], rows[:2], rows[2:], ("a", "b"))
    many = [found(f"copy{i}.png") for i in range(100)] + [found("x.png", "leak", "z.png")]
    s = Summary()
    show_issues(s, task, many)
    assert s.n_issues == {"copy": 100, "leak": 1}
    assert len(s.issues) == MOST_ISSUES // 2 + 1 and s.issues[-1].kind == "leak"
    assert [t.caption for t in s.issues[-1].thumbs] == ["x.png", "z.png"] and s.issues[0].thumbs == []


def test_splits_without_pictures_of_a_class_are_left_out() -> None:
    table = {"cat": {"labelled": 2, "unlabelled": 0, "validation": 0, "test": 3}, "": {"unlabelled": 9}}
    assert counts_by_class(table) == {"cat": {"labelled": 2, "test": 3}}


def test_words_about_a_baseline_that_was_not_measured() -> None:
    chosen = Tried(
        "pseudo-labels", True, cv_accuracy=0.9, chosen=True, prior_mean=0.086, prior_sd=0.06, posterior_mean=0.086,
        test_accuracy=0.931,
    )  # fmt: skip
    base = Tried("small network", baseline=True)
    rival = Tried("regression", cv_accuracy=0.8, test_accuracy=0.84)
    other = Tried(
        "nearest mean", cv_accuracy=0.7, test_accuracy=0.99
    )  # better on the test part: not picked by it
    words = verdict(Summary(tried=[rival, other, base, chosen]))
    assert "small network, was not measured here" in words and "8.6 points above it (± 6.0" in words
    assert "its accuracy is 90.0\u00a0%" in words and "regression, 80.0\u00a0%" in words
    assert "on the test part, its accuracy is 93.1\u00a0%; that of regression is 84.0\u00a0%" in words


def test_what_the_others_would_have_been_on_the_test_part(tmp_path: Path) -> None:
    """Of those that take seconds; the same as training each by itself and counting."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    images = from_array(np.round(x[:400] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8))
    labelled = torch.from_numpy(np.concatenate([np.flatnonzero(y[:200] == k)[:4] for k in range(10)]))
    truth = torch.from_numpy(y[:400].astype(np.int64))
    rest = torch.tensor(sorted(set(range(200)) - set(labelled.tolist())))
    task = Task(images, labelled, truth[labelled], rest, tuple(map(str, range(10))))
    workshop = Workshop(tmp_path / "cache", tmp_path / "run")
    among = [Candidate(name, "pixels") for name in ("logistic", "knn", "propagation")]
    outcome = choose(task, workshop, among=among)
    assert set(outcome.trials) == {candidate.key for candidate in among}
    test = torch.arange(200, 400)
    found = accuracy_afterwards(task, workshop, outcome, test, truth[test])
    assert set(found) == set(outcome.trials) - {outcome.chosen}
    for key, value in found.items():
        alone = choose(task, workshop, only=Candidate(*key.split("@")))
        assert value == pytest.approx(
            float((alone.fitted.logits(test).argmax(1) == truth[test]).double().mean())
        )
    assert accuracy_afterwards(task, workshop, outcome, test[:0], truth[:0]) == {}
