"""Errors against numbers worked out by hand, and the coverage of the interval."""

import json

import numpy as np
import pytest

from al_leignn.core import Labels
from al_leignn.validate.metrics import errors

NUMBERS = [np.array([1, 8]), np.array([1, 1, 1, 8])]


def labels(energy: float, forces: np.ndarray, stress: np.ndarray | None = None) -> Labels:
    return Labels(energy, forces, stress)


def test_by_hand() -> None:
    references = [labels(-1.0, np.zeros((2, 3)), np.zeros(6)), labels(-2.0, 2 * np.ones((4, 3)))]
    shifted = np.array([[0.3, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0.6]])
    predictions = [labels(-0.8, np.zeros((2, 3)), np.full(6, 0.01)), labels(-2.4, 2 * np.ones((4, 3)) + shifted, np.ones(6))]
    found = errors(predictions, references, NUMBERS)
    assert (found.n_frames, found.n_atoms, found.n_stress) == (2, 6, 1)
    assert found.energy_mae == pytest.approx(0.1)  # 0.2 / 2 and 0.4 / 4 per atom
    assert found.energy_rmse == pytest.approx(0.1)
    assert found.force_mae == pytest.approx(0.9 / 18)
    assert found.force_rmse == pytest.approx(np.sqrt((0.09 + 0.36) / 18))
    assert found.force_rms == pytest.approx(np.sqrt(4 * 12 / 18))
    assert found.force_mae_by_element == pytest.approx({"H": 0.3 / 12, "O": 0.6 / 6})
    assert found.stress_mae == pytest.approx(0.01)


def test_perfect_predictions_have_no_error() -> None:
    rng = np.random.default_rng(0)
    same = [labels(rng.normal(), rng.normal(size=(len(z), 3))) for z in NUMBERS]
    found = errors(same, same, NUMBERS)
    assert (found.energy_mae, found.force_mae, found.force_mae_low, found.force_mae_high) == (0, 0, 0, 0)
    assert found.stress_mae is None


def test_the_interval_covers_the_truth() -> None:
    """Frames of unequal size and unequal difficulty, six of them as in one iteration."""
    rng = np.random.default_rng(1)

    def draw(n: int) -> tuple[list[Labels], list[Labels], list[np.ndarray]]:
        sizes = rng.choice([8, 16], n)
        wrong = [labels(0.0, rng.lognormal(0, 0.4) * rng.normal(size=(k, 3))) for k in sizes]
        return wrong, [labels(0.0, np.zeros((k, 3))) for k in sizes], [np.ones(k, int) for k in sizes]

    truth = errors(*draw(5000)).force_mae
    found = [errors(*draw(6)) for _ in range(500)]
    inside = [
        m.force_mae_low <= truth <= m.force_mae_high
        for m in found
        if m.force_mae_low is not None and m.force_mae_high is not None
    ]
    assert len(inside) == 500
    assert 0.88 <= np.mean(inside) <= 0.98


def test_json_safe_even_when_a_prediction_is_not_a_number() -> None:
    references = [labels(0.0, np.zeros((2, 3)))]
    found = errors([labels(float("nan"), np.full((2, 3), np.nan))], references, NUMBERS[:1])
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["force_mae"] is None
    assert written["force_mae_low"] is None
    assert written["force_mae_by_element"] == {"H": None, "O": None}


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="0 predictions"):
        errors([], [], [])
