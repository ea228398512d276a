import math

import pytest

from al_leignn.report.numbers import number, percent, seconds


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0.0, "0.0 %"), (1.0, "100.0 %"), (0.9999, ">99.9 %"), (0.0001, "<0.1 %"), (0.1234, "12.3 %")],
)
def test_percent_claims_all_and_none_only_where_true(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5 s"), (119.0, "119.0 s"), (600.0, "10.0 min"), (7200.0, "2.0 h"), (1e6, "11.6 d")]
)
def test_seconds_in_the_unit_that_fits(value: float, text: str) -> None:
    assert seconds(value) == text


def test_number_shows_a_dash_where_there_is_none() -> None:
    assert [number(x) for x in (None, math.nan, math.inf, 0.012345, 1234.0)] == ["–", "–", "–", "0.0123", "1.23e+03"]
