"""The choice: beliefs, measurements, prior knowledge and the rule that puts them together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handful.choose.rule import (
    DOUBT,
    LONE_SPREAD,
    NO_PRIOR,
    RULE,
    Belief,
    PriorTable,
    Verdict,
    combine,
    decide,
    measured,
    prior_table,
)

EMPTY = PriorTable()


def test_beliefs_of_equal_certainty_meet_in_the_middle() -> None:
    mean, sd = combine(Belief(0.10, 0.04), Belief(0.20, 0.04))
    assert mean == pytest.approx(0.15)
    assert sd == pytest.approx(0.04 / math.sqrt(2))


def test_a_belief_twice_as_sure_counts_four_times() -> None:
    """Weights 1/0.01 and 1/0.0025, that is 1 to 4; the precisions 100 and 400 add up to 500."""
    mean, sd = combine(Belief(0.0, 0.10), Belief(0.05, 0.05))
    assert mean == pytest.approx(0.8 * 0.05)
    assert sd == pytest.approx(math.sqrt(1 / 500))


@given(
    st.floats(-1, 1),
    st.floats(0.001, 1),
    st.floats(-1, 1),
    st.floats(0.001, 1),
    st.floats(-1, 1),
    st.floats(0.001, 1),
)
def test_the_order_of_beliefs_does_not_matter(
    a: float, s: float, b: float, t: float, c: float, u: float
) -> None:
    one = combine(combine(Belief(a, s), Belief(b, t)), Belief(c, u))
    other = combine(Belief(c, u), combine(Belief(b, t), Belief(a, s)))
    assert one == pytest.approx(other, abs=1e-9)
    assert one.sd < min(s, t, u)
    assert min(a, b, c) - 1e-9 <= one.mean <= max(a, b, c) + 1e-9


def test_a_measured_difference_by_hand() -> None:
    """Per picture means of a: 1, 1, 1, 0.5; of b: 0, 0, 1, 0.5; gains 1, 1, 0, 0: mean 1/2, variance 1/3."""
    a = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=float)
    b = np.array([[0, 0, 1, 1], [0, 0, 1, 0]], dtype=float)
    mean, sd = measured(a, b, n_folds=1)
    assert mean == pytest.approx(0.5)
    assert sd == pytest.approx(math.sqrt(1 / 3 / 4))
    for folds, inflation in ((2, 2.0), (4, 4 / 3), (5, 1.25)):
        assert measured(a, b, folds).sd == pytest.approx(math.sqrt(1 / 3 / 4 * inflation))
        assert measured(a, b, folds).mean == pytest.approx(0.5)


def test_repeats_are_not_new_pictures() -> None:
    a = np.array([[1, 1, 0, 1, 0, 1]], dtype=float)
    b = np.array([[0, 1, 0, 1, 1, 0]], dtype=float)
    assert measured(np.repeat(a, 10, 0), np.repeat(b, 10, 0), 4) == pytest.approx(measured(a, b, 4))


def test_equal_answers_are_not_certainty() -> None:
    """No gain differs: the variance is that of one changed decision, 1/n, so the standard error is 1/n."""
    same = np.ones((5, 8))
    mean, sd = measured(same, same, n_folds=1)
    assert (mean, sd) == (0, pytest.approx(1 / 8))
    assert measured(same, same, n_folds=4).sd == pytest.approx(1 / 8 * math.sqrt(4 / 3))
    assert measured(same, np.zeros((5, 8)), n_folds=1) == pytest.approx((1.0, 1 / 8))


def test_the_floor_does_not_touch_larger_variances() -> None:
    a, b = np.array([[1.0, 0, 1, 0]]), np.array([[0.0, 1, 0, 1]])  # gains 1, -1, 1, -1: variance 4/3
    assert measured(a, b, n_folds=1).sd == pytest.approx(math.sqrt(4 / 3 / 4))


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


def priors(gain: float, spread: float = 0.0) -> PriorTable:
    """Two data sets on which "spread" gained ``gain ± spread`` over "linear"."""
    return PriorTable(
        {
            (name, "small", 4): {"linear": 0.5, "spread": 0.5 + gain + sign * spread}
            for name, sign in (("one", 1), ("two", -1))
        }
    )


PAIR = {"linear": False, "spread": True}


def test_the_baseline_ships_where_the_lead_is_within_half_a_standard_error() -> None:
    """Data sets that agree leave DOUBT = 0.1 as the spread: an error of 0.5 must fall by 0.5 - 0.5 / 1.05 = 0.0238
    for the gain to reach half of (0.5 - gain) * 0.1; for a whole one by 0.5 - 0.5 / 1.1 = 0.0455."""
    verdict = decide(PAIR, priors(0.023), "small", 1, {}, 1)
    assert (verdict.chosen, verdict.baseline) == ("linear", "linear")
    assert verdict.beliefs["spread"] == pytest.approx((0.023, (0.5 - 0.023) * DOUBT))
    assert decide(PAIR, priors(0.025), "small", 1, {}, 1).chosen == "spread"
    assert decide(PAIR, priors(0.025, spread=0.05), "small", 1, {}, 1).chosen == "linear"
    assert decide(PAIR, priors(0.044), "small", 1, {}, 1, sure=1.0).chosen == "linear"
    assert decide(PAIR, priors(0.047), "small", 1, {}, 1, sure=1.0).chosen == "spread"
    assert "more than 0.5 standard errors" in RULE


def test_evidence_and_prior_are_put_together() -> None:
    """16 pictures, 12 gained by the user: mean 0.75, variance of 12 ones and 4 zeros is 0.2, se^2 0.2/16 * 4/3."""
    right = {"linear": np.zeros((1, 16)), "spread": np.array([[1.0] * 12 + [0.0] * 4])}
    verdict = decide(PAIR, EMPTY, "small", 4, right, n_folds=4)
    w_prior, w_here = 1 / 0.10**2, 1 / (0.2 / 16 * 4 / 3)
    assert verdict.chosen == "spread"
    assert verdict.beliefs["spread"].mean == pytest.approx(0.75 * w_here / (w_prior + w_here))
    assert verdict.beliefs["spread"].sd == pytest.approx((w_prior + w_here) ** -0.5)
    assert verdict.priors["spread"] == NO_PRIOR


def test_more_repeats_of_one_candidate_are_compared_on_the_common_ones() -> None:
    many = np.stack([np.zeros(16), *[np.ones(16)] * 4])
    right = {"linear": many, "spread": np.zeros((1, 16))}
    assert decide(PAIR, EMPTY, "small", 4, right, 4).beliefs["spread"].mean == 0


def test_without_evidence_the_prior_alone_decides() -> None:
    assert decide(PAIR, priors(0.2), "small", 1, {}, 1).beliefs["spread"] == pytest.approx((0.2, 0.3 * DOUBT))
    assert decide(PAIR, EMPTY, "small", 1, {}, 1).chosen == "linear"


def test_the_strongest_labelled_only_candidate_is_the_baseline() -> None:
    names = {"linear": False, "net": False, "spread": True}
    rows = {(d, "small", 4): {"linear": 0.5, "net": 0.7, "spread": 0.65} for d in ("one", "two")}
    verdict = decide(names, PriorTable(rows), "small", 4, {}, 4)
    assert (verdict.baseline, verdict.chosen) == ("net", "net")
    assert verdict.beliefs["spread"].mean == pytest.approx(-0.05)
    assert verdict.beliefs["linear"].mean == pytest.approx(-0.2)


def test_a_bold_and_doubtful_candidate_does_not_hide_a_sure_one() -> None:
    """The bold one's errors are a sixth and 7/6 of the baseline's; the sure one's are 5/6 of it twice."""
    names = {"linear": False, "bold": True, "sure": True}
    rows = {
        ("one", "small", 4): {"linear": 0.4, "bold": 0.9, "sure": 0.5},
        ("two", "small", 4): {"linear": 0.4, "bold": 0.3, "sure": 0.5},
    }
    verdict = decide(names, PriorTable(rows), "small", 1, {}, 1, sure=1.0)
    bold, sure = verdict.beliefs["bold"], verdict.beliefs["sure"]
    assert bold.mean == pytest.approx(0.6 * (1 - math.sqrt(1 / 6 * 7 / 6)))
    assert sure == pytest.approx((0.1, 0.5 * DOUBT))
    assert sure.mean < bold.mean < bold.sd
    assert verdict.chosen == "sure"


def test_no_user_of_unlabelled_pictures_at_all() -> None:
    verdict = decide({"linear": False}, EMPTY, "photo", 4, {}, 4)
    assert (verdict.chosen, verdict.baseline) == ("linear", "linear")


@st.composite
def situations(draw: st.DrawFn) -> Verdict:
    users = draw(st.lists(st.booleans(), min_size=1, max_size=5))
    names = {"base": False, **{f"c{i}": user for i, user in enumerate(users)}}
    share = st.floats(0, 1)
    rows = {
        (d, "small", draw(st.integers(1, 64))): {name: draw(share) for name in names}
        for d in draw(st.lists(st.sampled_from("xyz"), unique=True))
    }
    n = draw(st.integers(2, 12))
    bits = st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)
    measured_ones = draw(st.lists(st.sampled_from(sorted(names)), unique=True))
    right = {name: np.array([draw(bits)]) for name in measured_ones}
    return decide(names, PriorTable(rows), "small", draw(st.integers(1, 64)), right, draw(st.integers(1, 4)))


@settings(max_examples=150, deadline=None)
@given(situations())
def test_what_ships_is_the_baseline_or_leads_it_by_half_a_standard_error(verdict: Verdict) -> None:
    mean, sd = verdict.beliefs[verdict.chosen]
    assert verdict.chosen == verdict.baseline or mean > 0.5 * sd
    assert verdict.beliefs[verdict.baseline].mean == 0
    assert set(verdict.beliefs) == set(verdict.priors)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_labelled_only_candidate_ships_only_as_the_baseline(data: st.DataObject) -> None:
    names = {"base": False, "other": False, "user": True}
    rows = {(d, "small", 4): {name: data.draw(st.floats(0, 1)) for name in names} for d in ("x", "y")}
    verdict = decide(names, PriorTable(rows), "small", 4, {}, 4)
    assert verdict.chosen in ("user", verdict.baseline)
    assert not names[verdict.baseline]
    logs = [
        math.log(max(1 - row[verdict.baseline], 0.005) / max(1 - row["user"], 0.005)) for row in rows.values()
    ]
    # gain > sd / 2, that is 1 - exp(-d) > exp(-d) s / 2, unless the baseline makes no error at all
    leads = math.exp(np.mean(logs)) - 1 > 0.5 * math.hypot(np.std(logs, ddof=1), DOUBT)
    possible = any(row[verdict.baseline] < 1 for row in rows.values())
    assert (verdict.chosen == "user") == (leads and possible)
