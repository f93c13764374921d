"""The drawings: they parse, they carry their values, and they keep inside their frame."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from handful.report import figures, words
from handful.report.compare_figures import Series, accuracy_curves
from handful.report.record import Thumb, Tried

HOSTILE = '</title><script>alert("x")</script>&'


def parsed(svg: str) -> ET.Element:
    """The drawing as XML; the text of every element is data, so a script element would be a hole."""
    root = ET.fromstring(svg)
    assert not [e for e in root.iter() if "script" in e.tag]
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    for e in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert -1 <= float(e.attrib.get(name, 0)) <= width + 1, e.attrib
        for name in ("y", "y1", "y2", "cy"):
            assert -1 <= float(e.attrib.get(name, 0)) <= height + 1, e.attrib
    return root


def texts(svg: str) -> str:
    return "\n".join(t for t in parsed(svg).itertext())


def test_dots_show_names_values_and_intervals() -> None:
    tried = [
        Tried("probe", cv_accuracy=0.8, cv_interval=(0.65, 0.9), baseline=True),
        Tried(HOSTILE, cv_accuracy=1.0, cv_interval=(0.91, 1.0), uses_unlabelled=True, chosen=True),
        Tried("not run"),
    ]
    shown = texts(figures.dots(tried))
    assert "probe (baseline)" in shown
    assert "80.0\u00a0%, 95 % interval 65.0\u00a0% to 90.0\u00a0%" in shown
    assert HOSTILE in shown
    assert "not run" not in shown
    assert figures.dots([Tried("not run")]) == ""


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_dots_without_intervals_at_the_ends(value: float) -> None:
    assert f"{100 * value:.1f}" in texts(figures.dots([Tried("a", cv_accuracy=value)]))


@pytest.mark.parametrize("k", [2, 3, 10, 20])
def test_confusion_has_every_count(k: int) -> None:
    matrix = np.arange(k * k).reshape(k, k) * 7
    shown = texts(figures.confusion(matrix.tolist(), [f"{HOSTILE}{i}" for i in range(k)]))
    total = int(matrix[1].sum())
    assert f"true {HOSTILE}1, predicted {HOSTILE}0: {int(matrix[1, 0])} of {total}" in shown


def test_confusion_of_many_classes_is_a_list_of_pairs() -> None:
    matrix = np.eye(100, dtype=int) * 9
    matrix[3, 70] = 5
    shown = texts(figures.confusion(matrix.tolist(), [f"class {i}" for i in range(100)]))
    assert "class 3 → class 70" in shown
    assert "5 of 14" in shown
    assert figures.confusion((np.eye(100, dtype=int) * 9).tolist(), ["x"] * 100) == ""


def test_confusion_refuses_other_names() -> None:
    with pytest.raises(ValueError, match="3 class names"):
        figures.confusion([[1, 0], [0, 1]], ["a", "b", "c"])


def test_worst_pairs_by_hand() -> None:
    matrix = [[5, 2, 0], [1, 7, 2], [0, 0, 9]]
    assert figures.worst_pairs(matrix, ["a", "b", "c"]) == [
        ("a", "b", 2, 7),
        ("b", "c", 2, 10),
        ("b", "a", 1, 10),
    ]


def test_lines_are_thinned_but_keep_their_ends() -> None:
    points = [(i, float(i % 7)) for i in range(10_000)]
    curve = next(e for e in parsed(figures.lines({"loss": points}, "loss")).iter() if e.tag == "polyline")
    assert len(curve.attrib["points"].split()) == 300
    assert "at the end 3" in texts(figures.lines({"loss": points}, "loss"))


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [-3e-9, 4e-9], [1e12, 2e12], [0.2, 0.9], [-5.0, 5.0]])
def test_lines_of_any_range(values: list[float]) -> None:
    assert "curve" in texts(figures.lines({"curve": list(enumerate(values))}, "t"))


def test_no_points_no_drawing() -> None:
    assert figures.lines({"a": []}, "t") == ""
    assert figures.balance({}) == ""
    assert figures.balance({"a": {"labelled": 0}}) == ""


def test_reliability_tells_each_bin() -> None:
    shown = texts(figures.reliability([(0.95, 0.7, 20)], [(0.75, 0.7, 20)]))
    assert "before temperature scaling: confidence 95.0\u00a0%, right 70.0\u00a0% of 20" in shown


def test_balance_shows_largest_and_smallest_of_many() -> None:
    counts = {f"c{i}": {"labelled": i + 1, "test": 2} for i in range(60)}
    shown = texts(figures.balance(counts)).splitlines()
    assert {"c59", "c40", "c19", "c0"} <= set(shown)
    assert "c30" not in shown


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_gauge(value: float) -> None:
    assert "Accuracy" in texts(figures.gauge(value, (value / 2, (1 + value) / 2)))


def test_pictures_are_inside_and_tiny_ones_stay_crisp() -> None:
    rng = np.random.default_rng(0)
    tiny = figures.picture(Thumb(rng.integers(0, 256, (1, 8, 8), dtype=np.uint8), caption='"><script>'))
    large = figures.picture(Thumb(rng.integers(0, 256, (3, 300, 200), dtype=np.uint8)))
    assert 'class="tiny"' in tiny
    assert "data:image/png;base64," in tiny
    assert "<script>" not in tiny
    assert "data:image/jpeg;base64," in large
    assert 'width="96" height="144"' in large


def test_shorten_keeps_both_ends_and_counts_wide_characters_twice() -> None:
    assert words.shorten("Taraxacum officinale", 9) == "Tara…nale"
    assert words.shorten("rose", 9) == "rose"
    assert words.shorten("夜の女王の花園", 9) == "夜の…花園"
    for length in range(1, 20):
        assert words.columns(words.shorten("Königin der Nacht 夜の女王", length)) <= length


def test_letters_of_curves_that_end_at_the_top_stay_inside_the_frame() -> None:
    points = [(1.0, 0.5, None, None), (16.0, 0.8, None, None)]
    series = {f"recipe {letter}": Series(letter, True, points) for letter in "ABCDEFGH"}
    root = parsed(accuracy_curves(series, "accuracy"))
    heights = [float(e.attrib["y"]) for e in root.iter("text") if e.text in "ABCDEFGH"]
    assert len(heights) == 16  # beside the curves and in the legend
    assert min(heights) >= 10  # a letter of 10 px has room
