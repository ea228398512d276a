"""The conformal factor keeps its promise on exchangeable data, and the alarm says when it cannot."""

import json
import math

import numpy as np
import pytest

from al_leignn.calibration import (
    FORCE_FLOOR,
    PRIOR_FACTOR,
    Calibration,
    calibrate,
    coverage,
    frame_errors,
    labels_needed,
    trust_levels,
)
from al_leignn.config import SelectConfig
from al_leignn.core import CommitteePrediction, Labels


def drawn(rng: np.random.Generator, n: int, *, overconfidence: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Errors and deviations of n labels: heavy-tailed, and linked to one another only loosely."""
    deviations = rng.lognormal(-2.0, 0.7, n)
    return overconfidence * deviations * np.abs(rng.standard_t(3, n)), deviations


@pytest.mark.parametrize("n", [9, 19, 50])
def test_coverage_is_nominal_on_exchangeable_data(n: int) -> None:
    rng = np.random.default_rng(n)
    shares = [coverage(calibrate(*drawn(rng, n)), *drawn(rng, 50)).share for _ in range(1000)]
    assert 0.9 - 0.01 <= np.mean(shares) <= 0.9 + 1 / (n + 1) + 0.01  # the theorem's two bounds, and three standard errors


def test_a_large_calibration_covers_90_percent() -> None:
    rng = np.random.default_rng(0)
    assert coverage(calibrate(*drawn(rng, 2000)), *drawn(rng, 20000)).share == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(("n", "checked"), [(4, 6), (9, 6), (30, 12), (200, 100)])
def test_alarm_is_seldom_false(n: int, checked: int) -> None:
    rng = np.random.default_rng(1)
    alarms = [coverage(calibrate(*drawn(rng, n)), *drawn(rng, checked)).drift for _ in range(1000)]
    assert np.mean(alarms) <= 0.025 + 0.01


def test_alarm_fires_on_shifted_data() -> None:
    rng = np.random.default_rng(2)
    alarms = [coverage(calibrate(*drawn(rng, 40)), *drawn(rng, 20, overconfidence=8.0)).drift for _ in range(200)]
    assert np.mean(alarms) > 0.95


def test_limits_are_those_of_clopper_and_pearson() -> None:
    found = coverage(Calibration(1.0, 0.9, 100, FORCE_FLOOR, 0), np.array([0.5] * 8 + [2.0] * 2), np.ones(10))
    assert (found.covered, found.n) == (8, 10)
    assert (found.low, found.high) == pytest.approx((0.44390, 0.97479), abs=1e-5)  # tabulated for 8 of 10
    assert coverage(Calibration(1.0, 0.9, 100, FORCE_FLOOR, 0), np.zeros(5), np.ones(5)).high == 1.0
    assert json.dumps(found.to_dict(), allow_nan=False)


def grouped(
    rng: np.random.Generator, frames: int, atoms: int = 40, differing: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors and deviations of atoms whose overconfidence differs from frame to frame, and the frame of each."""
    deviations = rng.lognormal(-2.0, 0.7, (frames, atoms))
    errors = deviations * np.abs(rng.standard_t(5, (frames, atoms))) * rng.lognormal(0.5, differing, (frames, 1))
    sizes = rng.integers(1, atoms, frames)
    mask = np.arange(atoms) < sizes[:, None]
    return errors[mask], deviations[mask], np.repeat(np.arange(frames), sizes)


@pytest.mark.parametrize("differing", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("n", [9, 20, 29])
def test_atoms_are_covered_at_90_percent_however_alike_those_of_a_frame_are(n: int, differing: float) -> None:
    rng = np.random.default_rng(n)
    shares = []
    for _ in range(300):
        errors, deviations, frame = grouped(rng, n, 12, differing)
        calibration = calibrate(errors, deviations, frame=frame)
        shares.append(coverage(calibration, *grouped(rng, 20, 12, differing)).share)
    assert 0.89 <= np.mean(shares) <= 0.94


def test_limits_of_atoms_hold_although_those_of_a_frame_go_together() -> None:
    rng = np.random.default_rng(0)
    calibration = calibrate(*grouped(rng, 2000)[:2])
    truth = coverage(calibration, *grouped(rng, 20000)).share
    checks = [coverage(calibration, *grouped(rng, 15)) for _ in range(400)]
    assert np.mean([check.low <= truth <= check.high for check in checks]) >= 0.91
    naive = [coverage(calibration, *grouped(rng, 15)[:2]) for _ in range(400)]
    assert np.mean([check.low <= truth <= check.high for check in naive]) < 0.85  # what counting atoms would claim


def test_alarm_on_atoms_is_seldom_false() -> None:
    rng = np.random.default_rng(3)
    alarms = []
    for _ in range(600):
        errors, deviations, frame = grouped(rng, 20)
        alarms.append(coverage(calibrate(errors, deviations, frame=frame), *grouped(rng, 12)).drift)
    assert np.mean(alarms) <= 0.025 + 0.01


def test_frames_of_one_atom_are_the_plain_case() -> None:
    errors, deviations = drawn(np.random.default_rng(8), 25)
    assert calibrate(errors, deviations, frame=np.arange(25)) == calibrate(errors, deviations)
    plain = Calibration(2.0, 0.9, 25, FORCE_FLOOR, 0)
    assert coverage(plain, errors, deviations, np.arange(25)) == coverage(plain, errors, deviations)


def test_a_large_frame_weighs_no_more_than_a_small_one() -> None:
    deviations = np.ones(1009)
    errors = np.concatenate([np.full(1000, 5.0), np.arange(1.0, 10.0)])  # one frame of 1000 atoms, nine of one
    found = calibrate(errors, deviations, frame=np.concatenate([np.zeros(1000, dtype=int), np.arange(1, 10)]))
    assert found.n == 10
    assert found.factor == 9.0  # ten of eleven, wherever the large frame lies


def test_coverage_too_weighs_a_large_frame_no_more_than_a_small_one() -> None:
    """A frame of 1000 atoms that are not covered beside nine of one atom that are."""
    errors, frame = np.concatenate([np.full(1000, 5.0), np.ones(9)]), np.concatenate([np.zeros(1000, int), np.arange(1, 10)])
    found = coverage(Calibration(2.0, 0.9, 25, FORCE_FLOOR, 0), errors, np.ones(1009), frame)
    assert (found.covered, found.n, found.frames, found.share) == (9, 1009, 10, 0.9)
    assert found.low < 0.6
    assert not found.drift


def test_factor_is_the_stated_order_statistic() -> None:
    deviations = np.full(19, 0.5)
    assert calibrate(0.5 * np.arange(1.0, 20.0), deviations).factor == pytest.approx(18)  # ceil(20 * 0.9)
    assert calibrate(0.5 * np.arange(1.0, 20.0), deviations, nominal=0.5).factor == pytest.approx(10)


@pytest.mark.parametrize(("nominal", "needed"), [(0.9, 9), (0.95, 19), (0.5, 1), (0.8, 4)])
def test_valid_from_the_stated_number_of_labels(nominal: float, needed: int) -> None:
    assert labels_needed(nominal) == needed
    rng = np.random.default_rng(0)
    assert calibrate(*drawn(rng, needed), nominal=nominal).valid
    if needed > 1:
        assert not calibrate(*drawn(rng, needed - 1), nominal=nominal).valid


def test_units_do_not_matter() -> None:
    errors, deviations = drawn(np.random.default_rng(3), 30)
    assert calibrate(1e3 * errors, 1e3 * deviations).factor == pytest.approx(calibrate(errors, deviations).factor)


def test_identical_members_are_flagged_and_not_trusted() -> None:
    found = calibrate(np.full(20, 0.3), np.zeros(20))
    assert math.isfinite(found.factor)
    assert found.degenerate
    assert not found.valid
    assert trust_levels(found, SelectConfig(), 0.05) == trust_levels(None, SelectConfig(), 0.05)


def test_forces_that_vanish_by_symmetry_are_no_fault() -> None:
    errors, deviations = drawn(np.random.default_rng(4), 20)
    errors[:5] = deviations[:5] = 0.0
    assert calibrate(errors, deviations).valid


def test_nan_counts_as_not_covered() -> None:
    errors, deviations = drawn(np.random.default_rng(5), 20)
    errors[:5] = np.nan
    broken = calibrate(errors, deviations)
    assert not broken.valid
    assert broken.factor == math.inf
    good = Calibration(100.0, 0.9, 20, FORCE_FLOOR, 0)
    assert coverage(good, np.array([0.1, np.nan, 0.1]), np.array([0.1, 0.1, np.nan])).covered == 1


@pytest.mark.parametrize("n", [0, 3, 30])
def test_survives_json(n: int) -> None:
    found = calibrate(*drawn(np.random.default_rng(6), n))
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert Calibration.from_dict(stored) == found
    del stored["typical"]  # as earlier versions wrote it
    assert Calibration.from_dict(stored).factor == found.factor


def test_frame_errors_by_hand() -> None:
    forces = np.zeros((2, 2, 3))
    forces[0, 1], forces[1, 1] = [6.0, 8.0, 0.0], [0.0, 0.0, 0.0]  # mean (3, 4, 0)
    found = frame_errors(CommitteePrediction(np.array([1.0, 3.0]), forces, None, np.zeros((2, 2))), Labels(1.0, np.zeros((2, 3))))
    assert found.per_atom == pytest.approx([0.0, 5.0])
    assert (found.max, found.energy) == pytest.approx((5.0, 0.5))


# --- trust levels ----------------------------------------------------------------------------------------


def test_a_committee_at_its_target_is_mostly_trusted() -> None:
    """The claim behind the constants: Gaussian errors that meet the target on average, and a calibrated deviation."""
    rng = np.random.default_rng(7)
    errors = 0.05 * np.sqrt(np.pi / 2) * rng.normal(size=(2000, 32, 3))
    assert np.abs(errors).mean() == pytest.approx(0.05, rel=0.01)
    norms = np.linalg.norm(errors, axis=-1)
    assert norms.mean() == pytest.approx(2.0 * 0.05, rel=0.01)
    lo, _ = trust_levels(Calibration(1.0, 0.9, 50, FORCE_FLOOR, 0), SelectConfig(), 0.05)
    assert np.mean(norms.max(axis=1)) == pytest.approx(lo, rel=0.1)


def test_levels_follow_target_and_factor() -> None:
    def levels(factor: float, target: float) -> tuple[float, float]:
        return trust_levels(Calibration(factor, 0.9, 50, FORCE_FLOOR, 0), SelectConfig(), target)

    lo, hi = levels(2.0, 0.05)
    assert 0 < lo < hi
    assert levels(2.0, 0.10) == pytest.approx((2 * lo, 2 * hi))
    assert levels(4.0, 0.05) == pytest.approx((lo / 2, hi / 2))
    assert levels(1e-6, 0.05)[0] < 0.5  # a factor near zero does not wave everything through


def test_a_frame_has_not_failed_where_it_deviates_like_those_that_were_labelled() -> None:
    """A young committee is uncertain of all frames of a healthy MD, which may not stop at the first."""
    deviations = np.linspace(0.1, 0.3, 21)
    young = calibrate(8 * deviations, deviations)
    lo, hi = trust_levels(young, SelectConfig(), 0.05)
    assert 5 * lo < np.median(deviations)
    assert deviations.max() < hi == pytest.approx(3 * 0.2)
    ripe = calibrate(0.8 * deviations, deviations / 10)
    assert trust_levels(ripe, SelectConfig(), 0.05) == pytest.approx((lo, 5 * lo))


def test_too_few_labels_only_make_it_more_cautious() -> None:
    prior = trust_levels(None, SelectConfig(), 0.05)
    assert trust_levels(Calibration(0.1, 0.9, 3, FORCE_FLOOR, 0), SelectConfig(), 0.05) == prior
    assert trust_levels(Calibration(2 * PRIOR_FACTOR, 0.9, 3, FORCE_FLOOR, 0), SelectConfig(), 0.05)[0] == pytest.approx(
        prior[0] / 2
    )
    assert trust_levels(calibrate(np.zeros(0), np.zeros(0)), SelectConfig(), 0.05) == prior


def test_fixed_levels_win_and_stay_ordered() -> None:
    assert trust_levels(None, SelectConfig(trust_lo=0.2, trust_hi=0.3), 0.05) == (0.2, 0.3)
    lo, hi = trust_levels(None, SelectConfig(trust_lo=10.0), 0.05)
    assert (lo, hi > lo) == (10.0, True)
    lo, hi = trust_levels(None, SelectConfig(trust_hi=0.01), 0.05)
    assert (lo < hi, hi) == (True, 0.01)
