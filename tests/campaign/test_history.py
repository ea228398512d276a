import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_leignn.campaign.uncertainty import deviation_summary, judged_atoms, judged_deviations

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


@pytest.mark.parametrize("force_scale", [None, 0.5])
def test_the_judged_atom_is_the_one_whose_value_is_judged(force_scale: float | None) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 40)
    per_atom, mean_force = rng.random(sizes.sum()), rng.exponential(1.0, sizes.sum())
    maxima = np.array([part.max() for part in np.split(per_atom, np.cumsum(sizes)[:-1])])
    samples = {"atoms": sizes, "per_atom": per_atom, "mean_force": mean_force, "max_deviation": maxima}
    at = np.cumsum(sizes) - sizes + judged_atoms(samples, force_scale)
    values = per_atom if force_scale is None else per_atom / (1.0 + mean_force / force_scale)
    np.testing.assert_allclose(values[at], judged_deviations(samples, force_scale))


def test_of_no_frames_no_atom_is_judged() -> None:
    none = {name: np.zeros(0) for name in ("atoms", "per_atom", "mean_force", "max_deviation")}
    assert judged_atoms(none | {"atoms": np.zeros(0, dtype=int)}, 1.0).tolist() == []
