"""What other data sets say: errors compared in logarithm, each data set once, at its nearest number of labels."""

from __future__ import annotations

import math

import pytest

from handful.choose.prior import DOUBT, LONE_SPREAD, NO_PRIOR, PriorTable, prior_table

EMPTY = PriorTable()
TABLE = PriorTable(
    {
        ("flowers", "photo", 1): {"a": 0.50, "b": 0.40},
        ("flowers", "photo", 4): {"a": 0.70, "b": 0.64},
        ("flowers", "photo", 16): {"a": 0.80, "b": 0.78},
        ("pets", "photo", 4): {"a": 0.60, "b": 0.50},
        ("pets", "photo", 64): {"a": 0.90},
        ("digits", "small", 4): {"a": 0.30, "b": 0.90},
    }
)


def test_each_data_set_votes_once_at_its_nearest_number_of_labels() -> None:
    """At 4 labels the errors of a and b are .30 and .36 on flowers, .40 and .50 on pets; digits are another kind."""
    first, second = math.log(0.36 / 0.30), math.log(0.50 / 0.40)
    mean, spread = (first + second) / 2, math.hypot(abs(first - second) / math.sqrt(2), DOUBT)
    belief = TABLE.difference("a", "b", "photo", 4, error=0.2)
    assert belief.mean == pytest.approx(0.2 * (1 - math.exp(-mean)))
    assert belief.sd == pytest.approx(0.2 * math.exp(-mean) * spread)
    assert TABLE.difference("a", "b", "photo", 4) == pytest.approx(
        (belief.mean * 2.15, belief.sd * 2.15)
    )  # .43
    back = TABLE.difference("b", "a", "photo", 4, error=0.2)
    assert back.mean == pytest.approx(0.2 * (1 - math.exp(mean)))


@pytest.mark.parametrize(
    ("labels", "ratio"),
    [(0, 0.6 / 0.5), (1, 0.6 / 0.5), (3, 0.36 / 0.3), (7, 0.36 / 0.3), (9, 0.22 / 0.2), (500, 0.22 / 0.2)],
)
def test_nearest_is_meant_in_log(labels: int, ratio: float) -> None:
    """7 / 4 is less than 16 / 7; 16 / 9 is less than 9 / 4. Pets were measured with both at 4 only."""
    mean = (math.log(ratio) + math.log(0.5 / 0.4)) / 2
    assert TABLE.difference("a", "b", "photo", labels, 1.0).mean == pytest.approx(1 - math.exp(-mean))


def test_photographs_speak_for_small_pictures_in_colour_and_gray_ones_do_not() -> None:
    """At 4 labels: thumbs as they are, log(.8 / .6), beside flowers and pets; digits' log(.1 / .7) is left out."""
    table = PriorTable({**TABLE.rows, ("thumbs", "small colour", 4): {"a": 0.4, "b": 0.2}})
    logs = [math.log(0.36 / 0.30), math.log(0.50 / 0.40), math.log(0.8 / 0.6)]
    mean = sum(logs) / 3
    assert table.difference("a", "b", "small colour", 4, 1.0).mean == pytest.approx(1 - math.exp(-mean))
    without = table.without(["thumbs"])
    assert without.difference("a", "b", "small colour", 4, 1.0) == without.difference(
        "a", "b", "photo", 4, 1.0
    )
    assert table.difference("a", "b", "photo", 4, 1.0) == TABLE.difference("a", "b", "photo", 4, 1.0)


def test_one_data_set_alone_has_the_spread_of_ignorance() -> None:
    only = TABLE.without(["pets"])
    spread = math.hypot(LONE_SPREAD, DOUBT)
    assert only.difference("a", "b", "photo", 16) == pytest.approx((0.02, 0.20 * spread))
    assert TABLE.difference("a", "b", "small", 4) == pytest.approx((-0.6, 0.70 * spread))


def test_errors_near_zero_do_not_run_away() -> None:
    """No error at all counts as half a percent: log(0.02 / 0.005) = log 4."""
    table = PriorTable({(name, "photo", 4): {"a": 1.0, "b": 0.98} for name in ("one", "two")})
    assert table.difference("a", "b", "photo", 4, 0.4).mean == pytest.approx(0.4 * (1 - 1 / 4))


def test_what_was_never_measured_is_not_known() -> None:
    assert TABLE.without(["pets", "flowers"]).difference("a", "b", "photo", 4) == NO_PRIOR
    assert TABLE.difference("a", "nobody", "photo", 4) == NO_PRIOR
    assert TABLE.difference("a", "b", "sounds", 4) == NO_PRIOR
    assert EMPTY.difference("a", "b", "photo", 4) == NO_PRIOR


def test_a_candidate_does_not_differ_from_itself() -> None:
    mean, sd = EMPTY.difference("a", "a", "photo", 4)
    assert mean == 0
    assert 0 < sd < 1e-5


def test_leaving_out_data_sets_leaves_the_others() -> None:
    assert set(TABLE.without(["pets"]).rows) == {key for key in TABLE.rows if key[0] != "pets"}
    assert TABLE.without([]).rows == TABLE.rows
    assert len(TABLE.rows) == 6, "without() must not change the table"


def test_the_shipped_table_can_be_read() -> None:
    for (data, kind, labels), row in prior_table().rows.items():
        assert data and kind in ("photo", "small colour", "small") and labels >= 1
        assert all(0 <= value <= 1 for value in row.values())
