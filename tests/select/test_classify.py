"""Verdicts partition the pool, whatever the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from al_leignn.core import Verdict
from al_leignn.select.classify import classify

levels = st.tuples(st.floats(1e-6, 10), st.floats(1e-6, 10)).map(sorted).filter(lambda pair: pair[0] < pair[1])


@given(st.lists(st.floats(0, width=64)), levels)
def test_verdicts_are_a_partition_by_half_open_windows(deviations: list[float], pair: list[float]) -> None:
    lo, hi = pair
    for deviation, verdict in zip(deviations, classify(np.array(deviations), lo, hi), strict=True):
        holds = {
            Verdict.ACCURATE: deviation < lo,
            Verdict.CANDIDATE: lo <= deviation < hi,
            Verdict.FAILED: not deviation < hi,  # NaN and infinity too
        }
        assert [v for v, yes in holds.items() if yes] == [verdict]


def test_the_borders_belong_to_the_upper_window() -> None:
    assert list(classify(np.array([0.1, 0.5, np.nan]), 0.1, 0.5)) == [Verdict.CANDIDATE, Verdict.FAILED, Verdict.FAILED]


def test_levels_must_rise() -> None:
    with pytest.raises(ValueError, match="must rise"):
        classify(np.array([0.1]), 0.5, 0.5)
