"""Tables and page of a comparison: means, paired gains and intervals by hand; nothing from elsewhere in the page."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest

from handful.report.compare import Comparison, analyse, render, to_csv, to_json
from handful.study.contenders import Contender
from handful.study.grid import Cell

PROBE, OTHER, USER = (
    Contender("logistic", "pixels"),
    Contender("knn", "pixels"),
    Contender("propagation", "pixels"),
)
ACCURACY = {  # by contender, size, draw
    (PROBE.name, 1): (0.50, 0.52, 0.54),
    (PROBE.name, 4): (0.70, 0.72, 0.77),
    (OTHER.name, 1): (0.60, 0.50, 0.58),
    (OTHER.name, 4): (0.60, 0.61, 0.62),
    (USER.name, 1): (0.64, 0.56, 0.63),
    (USER.name, 4): (0.75, 0.74, None),
}


def cells() -> list[Cell]:
    found = []
    for (name, size), values in ACCURACY.items():
        for seed, value in enumerate(values):
            if value is None:
                found.append(Cell(name, size, seed, failed="no <memory> left"))
            else:
                found.append(
                    Cell(
                        name,
                        size,
                        seed,
                        2 * size,
                        value,
                        value - 0.01,
                        0.1,
                        50,
                        1.0 + seed,
                        2**20 * (seed + 1),
                        512 * size,
                    )
                )
    return found


@pytest.fixture
def comparison() -> Comparison:
    titles = {
        "logistic": "logistic regression",
        "knn": "nearest <neighbours>",
        "propagation": "label propagation",
    }
    return analyse(
        cells(), [PROBE, OTHER, USER], titles, data="tiny & <b>bold</b>", scored_on="50 test pictures", classes=2,
        about={"command": "handful compare x"},
    )  # fmt: skip


def row(c: Comparison, contender: Contender, labels: int):  # type: ignore[no-untyped-def]
    (found,) = [r for r in c.rows if (r.contender, r.labels) == (contender.name, labels)]
    return found


def test_means_spread_and_interval(comparison: Comparison) -> None:
    found = row(comparison, PROBE, 4)
    assert found.accuracy.value == pytest.approx(0.73)
    sd = math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2)
    assert found.sd == pytest.approx(sd)
    half = 4.302653 * sd / math.sqrt(3)  # Student's t with 2 degrees of freedom
    assert found.accuracy.interval == pytest.approx((0.73 - half, 0.73 + half), abs=1e-6)
    assert (found.seconds, found.peak_memory, found.n_labels) == (2.0, 2 * 2**20, 8)
    assert found.learned_bytes == 2048


def test_what_each_recipe_keeps_stands_in_the_table(comparison: Comparison) -> None:
    page = render(comparison)
    assert "2.0 kB" in page and "0.5 kB" in page and "grows with each label" in page
    rows = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert {(row["labels_per_class"], row["learned_kb"]) for row in rows} == {("1", "0.5"), ("4", "2.0")}


def test_the_gain_is_paired_and_to_the_best_baseline_of_the_size(comparison: Comparison) -> None:
    one, four = row(comparison, USER, 1), row(comparison, USER, 4)
    assert (one.baseline, four.baseline) == (OTHER.name, PROBE.name)
    gains = (0.04, 0.06, 0.05)
    assert one.gain.value == pytest.approx(sum(gains) / 3)
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert one.gain.interval == pytest.approx((0.05 - half, 0.05 + half), abs=1e-6)
    assert four.gain.value == pytest.approx((0.05 + 0.02) / 2)  # the failed draw is left out of both
    assert four.draws == 2
    assert row(comparison, OTHER, 1).gain is None  # the baseline itself
    assert row(comparison, PROBE, 1).gain.value == pytest.approx((0.5 + 0.52 + 0.54 - 0.6 - 0.5 - 0.58) / 3)


def test_labels_saved_are_read_off_the_best_baseline(comparison: Comparison) -> None:
    saved = row(comparison, USER, 1).saved
    # the curve rises from 0.56 (nearest neighbours) at 1 to 0.73 (regression) at 4; 0.61 is 5/17 of the way
    assert saved.labels == pytest.approx(4 ** (0.05 / 0.17))
    assert row(comparison, PROBE, 1).saved is None
    assert row(comparison, USER, 4).saved.beyond == "above"
    (line,) = comparison.sentences
    assert line.startswith(
        "With 1 label per class, label propagation (pixels) does what nearest <neighbours> (pixels) needs 1.5 ("
    )


def test_json_and_csv_say_the_same(comparison: Comparison) -> None:
    content = json.loads(to_json(comparison))
    assert len(content["cells"]) == 18 and len(content["rows"]) == 6
    table = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    for one, two in zip(content["rows"], table, strict=True):
        assert float(two["accuracy"]) == pytest.approx(one["accuracy"]["value"], abs=1e-4)
        assert (two["gain"] != "") == (one["gain"] is not None)
    assert content["rows"][1]["saved"] is None


def test_page_escapes_names_and_needs_nothing_from_elsewhere(comparison: Comparison) -> None:
    page = render(comparison)
    assert "tiny &amp; &lt;b&gt;bold" in page and "<b>bold" not in page
    assert "no &lt;memory&gt; left" in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert "<script" not in page and "@import" not in page
    assert page == render(comparison)
    assert page.count("baseline</span>") == 2
    assert "61.0\u00a0%" in page  # the mean of the user at one label


def test_more_labels_are_foretold_from_three_sizes_on(comparison: Comparison) -> None:
    assert comparison.forecast == ""  # two sizes
    steady = [
        Cell(USER.name, n, seed, 2 * n, 1 - 0.4 / n + 0.01 * seed, 0.5, 0.1, 50)
        for n in (1, 2, 4, 8)
        for seed in (0, 1)
    ]
    steady += [replace(cell, contender=PROBE.name, accuracy=(cell.accuracy or 0) - 0.1) for cell in steady]
    c = analyse(steady, [PROBE, USER], {}, data="x", scored_on="y", classes=2)
    assert c.forecast.startswith("Beyond 8 labels per class with propagation (pixels): ")
    assert "more labels" in c.forecast and c.forecast in render(c)


def test_a_single_draw_has_no_intervals() -> None:
    alone = [c for c in cells() if c.seed == 0]
    page = render(analyse(alone, [PROBE, OTHER, USER], {}, data="x", scored_on="y", classes=2))
    assert "nan" not in page.lower().replace("finance", "")


def test_on_a_phone_every_figure_carries_its_name(comparison: Comparison) -> None:
    """The table's head is hidden there: each cell but the first has to say what it is."""
    rows = re.findall(r"<tr[^>]*>(<td.*?)</tr>", render(comparison), flags=re.DOTALL)
    assert len(rows) == 6
    for row in rows:
        first, *others = re.findall(r"<td[^>]*>", row)
        assert "data-name" not in first
        assert len(others) == 10
        assert all("data-name=" in cell for cell in others)


def test_settings_join_the_brackets_of_a_title() -> None:
    one = replace(PROBE, training={"steps": 20})
    cell = Cell(one.name, 1, 0, 2, 0.5, 0.5, 0.1, 50, 1.0, 2**20, 512)
    for title, whole in (
        ("FixMatch (small network)", "FixMatch (small network; pixels, steps 20)"),
        ("label propagation", "label propagation (pixels, steps 20)"),
    ):
        found = analyse([cell], [one], {"logistic": title}, data="digits", classes=10, scored_on="test")
        assert found.rows[0].title == whole


def test_figures_name_the_recipes_as_the_text_does(comparison: Comparison) -> None:
    page = render(comparison)
    bars, rest = page.split('id="curves"')
    assert (
        "label propagation (pixels): perhaps &gt; 4</text>" in bars
    )  # whole, though it is beyond what was measured
    curves = rest.split('id="time"')[0]
    assert "label propagation (pixels)</text>" in curves
    assert "propagation@pixels" not in curves
