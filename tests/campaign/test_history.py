import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from al_leignn.campaign.uncertainty import deviation_summary

TRUST = {"lo": 0.1, "hi": 0.5}
deviations = st.lists(st.floats(0, 10) | st.just(float("nan")) | st.just(float("inf")), max_size=50).map(np.array)


@settings(deadline=None)  # the machine may be busy
@given(deviations)
def test_verdict_shares_partition_the_frames(values: np.ndarray) -> None:
    row = deviation_summary(values.astype(float), TRUST, None)
    shares = [row["accurate"], row["candidate"], row["failed"]]
    assert row["frames"] == len(values)
    assert shares == [None] * 3 if len(values) == 0 else np.isclose(sum(shares), 1.0)


@settings(deadline=None)  # the machine may be busy
@given(deviations)
def test_no_number_is_nan_or_infinite(values: np.ndarray) -> None:
    row = deviation_summary(values.astype(float), TRUST, {"factor": 2.0, "floor": 1e-4})
    assert all(np.isfinite(value) for value in row.values() if value is not None)


def test_windows_are_half_open_and_nan_fails() -> None:
    row = deviation_summary(np.array([0.0999, 0.1, 0.4999, 0.5, np.nan]), TRUST, None)
    assert (row["accurate"], row["candidate"], row["failed"]) == (0.2, 0.4, 0.4)


def test_bound_uses_factor_and_floor() -> None:
    assert deviation_summary(np.full(3, 0.2), None, {"factor": 2.0, "floor": 1e-4})["bound_90"] == 0.4
    assert deviation_summary(np.zeros(3), None, {"factor": 2.0, "floor": 0.1})["bound_90"] == 0.2
    assert deviation_summary(np.full(3, 0.2), None, {"factor": None, "floor": 1e-4})["bound_90"] is None
