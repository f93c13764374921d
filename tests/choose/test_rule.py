"""The choice: beliefs, measurements, prior knowledge and the rule that puts them together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handful.choose.prior import DOUBT, NO_PRIOR, PriorTable
from handful.choose.rule import RULE, SURE, Verdict, decide

EMPTY = PriorTable()


def priors(gain: float, spread: float = 0.0) -> PriorTable:
    """Two data sets on which "spread" gained ``gain ± spread`` over "linear"."""
    return PriorTable(
        {
            (name, "small", 4): {"linear": 0.5, "spread": 0.5 + gain + sign * spread}
            for name, sign in (("one", 1), ("two", -1))
        }
    )


PAIR = {"linear": False, "spread": True}


def test_the_baseline_ships_where_the_lead_is_within_a_quarter_of_a_standard_error() -> None:
    """Data sets that agree leave DOUBT = 0.1 as the spread: an error of 0.5 must fall by 0.5 - 0.5 / 1.025 = 0.0122
    for the gain to reach a quarter of (0.5 - gain) * 0.1; for a whole one by 0.5 - 0.5 / 1.1 = 0.0455."""
    verdict = decide(PAIR, priors(0.0120), "small", 1, {}, 1)
    assert (verdict.chosen, verdict.baseline) == ("linear", "linear")
    assert verdict.beliefs["spread"] == pytest.approx((0.0120, (0.5 - 0.0120) * DOUBT))
    assert decide(PAIR, priors(0.0125), "small", 1, {}, 1).chosen == "spread"
    assert decide(PAIR, priors(0.0125, spread=0.05), "small", 1, {}, 1).chosen == "linear"
    assert decide(PAIR, priors(0.044), "small", 1, {}, 1, sure=1.0).chosen == "linear"
    assert decide(PAIR, priors(0.047), "small", 1, {}, 1, sure=1.0).chosen == "spread"
    assert "more than 0.25 standard errors" in RULE


def test_evidence_and_prior_are_put_together() -> None:
    """16 pictures, 12 gained by the user: mean 0.75, variance of 12 ones and 4 zeros is 0.2, se^2 0.2/16 * 7/3."""
    right = {"linear": np.zeros((1, 16)), "spread": np.array([[1.0] * 12 + [0.0] * 4])}
    verdict = decide(PAIR, EMPTY, "small", 4, right, n_folds=4)
    w_prior, w_here = 1 / 0.10**2, 1 / (0.2 / 16 * 7 / 3)
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
def test_what_ships_is_the_baseline_or_leads_it_by_a_quarter_of_a_standard_error(verdict: Verdict) -> None:
    mean, sd = verdict.beliefs[verdict.chosen]
    assert verdict.chosen == verdict.baseline or mean > SURE * sd
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
    # gain > SURE sd, that is 1 - exp(-d) > exp(-d) SURE s, unless the baseline makes no error at all
    leads = math.exp(np.mean(logs)) - 1 > SURE * math.hypot(np.std(logs, ddof=1), DOUBT)
    possible = any(row[verdict.baseline] < 1 for row in rows.values())
    assert (verdict.chosen == "user") == (leads and possible)
