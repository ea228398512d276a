"""Every quantity is calibrated on its own errors, and those of atoms know their frames and elements."""

import numpy as np
import pytest
from ase import Atoms

from al_leignn.calibration import frame_errors
from al_leignn.core import CommitteePrediction, Frame, LabelledFrame, Labels, Origin
from al_leignn.deviation import deviation
from al_leignn.quantities import ANY_ATOM, ENERGY, WORST_ATOM, quantities


def drawn(rng: np.random.Generator, symbols: str, n: int) -> tuple[list[CommitteePrediction], list[LabelledFrame]]:
    """Frames whose copper is predicted better than their gold, and members that are twice too sure."""
    predictions, labelled = [], []
    for _ in range(n):
        atoms = Atoms(symbols, rng.normal(size=(len(Atoms(symbols)), 3)))
        width = np.where(atoms.numbers == 79, 0.3, 0.1)[:, None]
        truth = rng.normal(size=(len(atoms), 3))
        shift = width * rng.normal(size=truth.shape)
        forces = truth + shift + 0.5 * width * rng.normal(size=(4, *truth.shape))
        predictions.append(CommitteePrediction(rng.normal(size=4), forces, None, np.zeros((4, len(atoms)))))
        frame = Frame.of(atoms, Origin("md"))
        labelled.append(LabelledFrame(frame, Labels(float(rng.normal()), truth), "level"))
    return predictions, labelled


def test_quantities_hold_the_errors_of_their_atoms() -> None:
    predictions, labelled = drawn(np.random.default_rng(0), "Cu3Au2", 7)
    found = quantities(predictions, labelled)
    assert list(found) == [WORST_ATOM, ANY_ATOM, "force on Cu", "force on Au", ENERGY]
    errors = [frame_errors(p, item.labels) for p, item in zip(predictions, labelled, strict=True)]
    np.testing.assert_allclose(found[WORST_ATOM].errors, [e.max for e in errors])
    np.testing.assert_allclose(found[WORST_ATOM].deviations, [deviation(p).max for p in predictions])
    np.testing.assert_allclose(found[ENERGY].errors, [e.energy for e in errors])
    gold = found["force on Au"]
    np.testing.assert_allclose(gold.errors, np.concatenate([e.per_atom[3:] for e in errors]))
    assert gold.frame.tolist() == np.repeat(np.arange(7), 2).tolist()
    assert len(found["force on Cu"].errors) + len(gold.errors) == len(found[ANY_ATOM].errors) == 35


def test_each_quantity_is_covered_at_90_percent() -> None:
    rng = np.random.default_rng(1)
    calibrations = {name: q.calibrate() for name, q in quantities(*drawn(rng, "Cu3Au2", 400)).items()}
    fresh = quantities(*drawn(rng, "Cu3Au2", 1500))
    for name, quantity in fresh.items():
        held = quantity.coverage(calibrations[name])
        assert held.share == pytest.approx(0.9, abs=0.03), name
        assert held.low < held.share < held.high
        assert not held.drift


def test_one_element_is_not_told_apart() -> None:
    assert list(quantities(*drawn(np.random.default_rng(2), "Cu4", 3))) == [WORST_ATOM, ANY_ATOM, ENERGY]
    assert quantities([], []) == {}


def test_the_relative_criterion_weighs_errors_and_deviations_alike() -> None:
    predictions, labelled = drawn(np.random.default_rng(3), "Cu3Au2", 5)
    plain, relative = (quantities(predictions, labelled, scale)[ANY_ATOM] for scale in (None, 0.5))
    np.testing.assert_allclose(relative.errors / relative.deviations, plain.errors / plain.deviations)
    assert (relative.errors < plain.errors).all()
