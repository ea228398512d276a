import numpy as np
import pytest
from ase import Atoms

from al_leignn.core import Frame, LabelledFrame, Labels, Origin
from al_leignn.errors import DataError
from al_leignn.train.baseline import fit_e0s


def _frame(numbers: list[int], energy: float) -> LabelledFrame:
    positions = np.arange(3 * len(numbers), dtype=float).reshape(-1, 3)
    return LabelledFrame(Frame.of(Atoms(numbers, positions), Origin("data")), Labels(energy, np.zeros((len(numbers), 3))), "x")


TRUE = {1: -13.6, 8: -2043.2, 14: -7874.5}


def _linear(compositions: list[list[int]]) -> list[LabelledFrame]:
    return [_frame(numbers, sum(TRUE[z] for z in numbers)) for numbers in compositions]


def test_energies_linear_in_composition_are_recovered() -> None:
    rng = np.random.default_rng(1)
    frames = _linear([rng.choice([1, 8, 14], size=rng.integers(1, 12)).tolist() for _ in range(30)])
    assert fit_e0s(frames) == pytest.approx(TRUE, abs=1e-6)


def test_known_energies_are_kept_and_the_rest_fitted() -> None:
    frames = _linear([[1, 8], [1, 1, 8], [8, 14, 14]])
    fitted = fit_e0s(frames, known={8: TRUE[8], 29: -1.0})
    assert fitted == pytest.approx(TRUE | {29: -1.0}, abs=1e-6)
    assert fitted[8] == TRUE[8]
    assert list(fitted) == sorted(fitted)


def test_one_composition_gives_equal_shares() -> None:
    fitted = fit_e0s([_frame([1, 1, 8], -30.0), _frame([1, 8, 1] * 2, -66.0)])
    assert fitted == pytest.approx({1: -10.5, 8: -10.5})  # the mean of -10 and -11 eV per atom


def test_nearly_equal_compositions_do_not_amplify_noise() -> None:
    many = [1] * 2000
    frames = [_frame(many + [8] * 2000, -4000.0), _frame([*many, *[8] * 2001], -4000.0)]
    assert all(abs(e) < 10.0 for e in fit_e0s(frames).values())


def test_nothing_to_fit_to_is_an_error() -> None:
    with pytest.raises(DataError, match="without frames"):
        fit_e0s([])
    assert fit_e0s([], known={1: -13.6}) == {1: -13.6}
