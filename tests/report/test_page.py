"""The page: everything is on it, nothing comes from elsewhere, and no name can break out."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from handful.report import page, words
from handful.report.record import Audit, ConfusedPair, Problem, Summary, Thumb, Tried

EMPTY = {"area", "br", "hr", "img", "input", "link", "meta"}
SECTIONS = [
    *("tried", "next", "problems", "confusion", "mistakes"),
    *("reliability", "audit", "curves", "data", "made"),
]
HOSTILE = "<script>alert('1')</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"


class Reader(HTMLParser):
    """Collects tags, attributes and text; fails where elements are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.words))


def check_self_contained(html: str) -> Reader:
    reader = Reader(html)
    for tag, attrs in reader.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attrs.get(name) or "#").startswith(("data:image/", "#")), (tag, attrs)
    assert "url(" not in html
    assert "@import" not in html
    return reader


def hostile(s: Summary) -> Summary:
    """Every name and sentence of the summary replaced by one that tries to break out."""
    thumb = Thumb(np.zeros((1, 8, 8), np.uint8), HOSTILE, HOSTILE, HOSTILE, 0.5)
    return replace(
        s,
        **dict.fromkeys(
            ("title", "data_name", "measured_on", "verdict", "decision_rule", "command"), HOSTILE
        ),
        confusion_on=HOSTILE,
        counts={HOSTILE: {HOSTILE: 3}},
        classes=[HOSTILE] * len(s.classes),
        tried=[Tried(HOSTILE, note=HOSTILE, cv_accuracy=0.5, chosen=True)],
        curves={HOSTILE: {HOSTILE: [(0, 1.0)], "loss" + HOSTILE: [(0, 1.0)]}},
        confused_pairs=[ConfusedPair(HOSTILE, HOSTILE, 1, [thumb])],
        mistakes=[thumb],
        least_sure=[thumb],
        mean_pictures={HOSTILE: thumb},
        audit=Audit(n_used=1, per_class={HOSTILE: (1, None)}, note=HOSTILE),
        next_steps=[HOSTILE],
        issues=[Problem(HOSTILE, HOSTILE, HOSTILE, HOSTILE, [thumb])],
        provenance={HOSTILE: HOSTILE},
    )


def test_nothing_comes_from_elsewhere(example: Summary) -> None:
    html = page.render(example)
    check_self_contained(html)
    assert "http://" not in html
    assert "https://" not in html
    assert len(html) < 500_000


def test_names_cannot_break_out(example: Summary) -> None:
    html = page.render(hostile(example))
    reader = check_self_contained(html)
    assert reader.text.count("<script>alert('1')</script>") > 20
    assert reader.text.count("{{ 7 * 7 }}") > 20
    check_self_contained(page.render(hostile(replace(example, confusion=None))))


def test_the_values_are_on_the_page(example: Summary) -> None:
    text = Reader(page.render(example)).text.replace("\u00a0", " ")
    assert example.headline_accuracy is not None
    assert example.headline_interval is not None
    low, high = example.headline_interval
    assert f"{100 * example.headline_accuracy:.1f} %" in text
    assert f"95 % interval {100 * low:.1f} to {100 * high:.1f} %" in text
    assert example.measured_on in text
    assert example.decision_rule in text
    assert "1\u202f308 unlabelled" in text
    for t in example.tried:
        assert t.name in text
        if t.test_accuracy is not None:
            assert f"{100 * t.test_accuracy:.1f} %" in text
    for said in (
        *example.next_steps,
        *(problem.reason for problem in example.issues),
        example.command,
        *example.provenance.values(),
    ):
        assert said in text
    assert "not used for choosing" in text
    assert "expected calibration error" in text.lower()
    assert example.audit is not None
    assert f"{100 * example.audit['accuracy']:.1f} %" in text
    assert "unlabelled/0391.png" in text


def test_sections_without_data_are_left_out(example: Summary) -> None:
    empty = Reader(page.render(Summary()))
    assert [tag for tag, _ in empty.tags if tag in ("section", "h2", "table", "svg", "img")] == []
    full = [a["id"] for tag, a in Reader(page.render(example)).tags if tag == "section"]
    assert full == SECTIONS
    some = Reader(page.render(replace(example, audit=None, mistakes=[], reliability=None)))
    left = [a["id"] for tag, a in some.tags if tag == "section"]
    assert left == [name for name in full if name not in ("audit", "mistakes", "reliability")]
    targets = [a["href"] for tag, a in some.tags if tag == "a"]
    assert sorted(targets) == sorted(f"#{name}" for name in left if name)


def test_test_accuracy_has_no_column_without_figures(example: Summary) -> None:
    without = [replace(t, test_accuracy=None) for t in example.tried]
    assert "not used for choosing" not in page.render(replace(example, tried=without))


def test_equal_summaries_give_equal_pages(example: Summary) -> None:
    assert page.render(Summary.from_json(example.to_json())) == page.render(example)


def test_write_is_whole_and_takes_any_name(tmp_path: Path, example: Summary) -> None:
    target = tmp_path / "run" / "report.html"
    page.write(replace(example, title="caf\udce9 夜"), target)
    assert "caf\\udce9 夜" in target.read_text("utf-8")
    assert [p.name for p in target.parent.iterdir()] == ["report.html"]


BASE = Tried("probe", cv_accuracy=0.8, baseline=True)


@pytest.mark.parametrize(
    ("interval", "rival", "ending"),
    [
        ((0.02, 0.10), 0.01, "The unlabelled pictures helped."),
        ((0.02, 0.10), 0.04, "from the baseline."),  # a labelled-only rival lies inside the interval
        ((-0.01, 0.13), 0.0, "Whether the unlabelled pictures helped is not certain."),
    ],
)
def test_verdict_claims_no_more_than_the_figures(
    interval: tuple[float, float], rival: float, ending: str
) -> None:
    chosen = Tried("spreading", True, difference=0.06, difference_interval=interval, chosen=True)
    other = Tried("nearest mean", cv_accuracy=0.8 + rival, difference=rival)
    said = page.verdict(Summary(tried=[BASE, other, chosen]))
    assert said.startswith("Of 3 recipes tried, spreading was chosen.")
    assert "6.0 points above the labelled-only baseline, probe" in said
    assert said.endswith(ending)


def test_verdict_when_the_baseline_ships() -> None:
    rival = Tried("spreading", True, cv_accuracy=0.81, difference=0.01, difference_interval=(-0.05, 0.07))
    unmeasured = Tried("network", note="no time left")
    said = page.verdict(Summary(tried=[replace(BASE, chosen=True), rival, unmeasured]))
    assert said.startswith("Of 2 recipes tried, probe was chosen. It learns from the labelled pictures alone")
    assert "spreading, differed by +1.0 points (95 % interval \u22125.0 to +7.0)" in said
    assert page.verdict(Summary()) == ""
    assert page.verdict(Summary(tried=[replace(BASE, chosen=True)])) == "Only probe was tried."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.31, "0.3 s"), (9.96, "10 s"), (59.7, "1 min 0 s"), (125, "2 min 5 s"), (7500, "2 h 5 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_small_words() -> None:
    assert words.points(-0.0412) == "\u22124.1 points"
    assert words.points(-0.0001) == "0.0 points"
    assert words.sure(0.997).startswith("99.7")
    assert words.sure(0.99999).startswith("99.9")
    assert words.sure(0.832) == "83\u00a0%"
