"""Bad geometries and bad labels are named; good ones pass."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from al_leignn.core import DoubtfulLabels, Frame, LabelFailure, Labels, Origin, Reason
from al_leignn.label.checks import UNITS, Expectation, check_labels, disagreement, screen_geometry, unit_of
from al_leignn.label.equivalent import Equivalent


def frame_of(atoms: Atoms) -> Frame:
    return Frame.of(atoms, Origin("given"))


PAIR = frame_of(Atoms("SiSi", positions=[[0, 0, 0], [0, 0, 2.3]]))
FORCES = np.array([[0.1, 0.0, 0.5], [-0.1, 0.0, -0.5]])
CAP = 100.0
PUSH = np.array([0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    "atoms", [bulk("Si"), bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6), molecule("H2O"), molecule("H2"), Atoms("H")]
)
def test_ordinary_matter_passes(atoms: Atoms) -> None:
    assert screen_geometry(frame_of(atoms)) is None


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("SiO", positions=[[0, 0, 0], [0, 0, 0.4]]),
        Atoms("SiO", positions=[[0, 0, 0.1], [0, 0, 4.9]], cell=[5, 5, 5], pbc=True),  # close through the boundary
        Atoms("Si", cell=[5, 5, 1.0], pbc=True),  # close to its own image
        Atoms("H2", positions=np.zeros((2, 3))),
    ],
)
def test_overlapping_atoms_are_refused_by_name(atoms: Atoms) -> None:
    failure = screen_geometry(frame_of(atoms))
    assert failure is not None
    assert failure.reason == "geometry"
    assert atoms.get_chemical_symbols()[0] in failure.detail


def test_contact_is_relative_to_covalent_radii() -> None:
    assert screen_geometry(PAIR, factor=1.0) is None
    assert screen_geometry(PAIR, factor=1.1) is not None


def test_good_labels_pass_unchanged() -> None:
    labels = Labels(-1.0, FORCES, np.zeros(6))
    assert check_labels(PAIR, labels, CAP) is labels


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (Labels(float("nan"), FORCES), "not finite"),
        (Labels(float("inf"), FORCES), "not finite"),
        (Labels(-1.0, FORCES[:1]), "bad output"),
        (Labels(-1.0, FORCES, np.array([0, 0, np.nan, 0, 0, 0])), "not finite"),
        (Labels(-1.0, np.where(FORCES > 0.3, np.nan, FORCES)), "not finite"),
        (Labels(-1.0, FORCES * 2.1 * CAP), "forces"),
    ],
)
def test_bad_labels_are_named(labels: Labels, reason: str) -> None:
    result = check_labels(PAIR, labels, CAP)
    assert isinstance(result, LabelFailure)
    assert result.reason == reason
    assert result.uid == PAIR.uid
    assert result.detail


def test_a_net_force_counts_relative_to_the_forces() -> None:
    assert isinstance(check_labels(PAIR, Labels(-1.0, FORCES * 20 + PUSH / 5), CAP), Labels)
    assert isinstance(check_labels(PAIR, Labels(-1.0, FORCES * 0.1 + PUSH / 5), CAP), DoubtfulLabels)


def test_a_net_force_is_a_doubt_that_a_person_may_overrule() -> None:
    result = check_labels(PAIR, Labels(-1.0, FORCES + PUSH), CAP)
    assert isinstance(result, DoubtfulLabels)
    assert result.doubt.reason is Reason.NET_FORCE


# --- against the committee ---------------------------------------------------------------------------------

EXPECTED = Expectation(energy=-10.8, forces=FORCES * 1.02, force_bound=0.05)


@pytest.mark.parametrize("unit", UNITS)
def test_numbers_in_another_unit_are_told(unit: str) -> None:
    energy, force = UNITS[unit]
    assert unit_of(Labels(-10.75 / energy, FORCES / force), EXPECTED) == unit


@pytest.mark.parametrize("energy", [-10.8, -10.7, -5.0, -20.0, 10.8])
def test_a_surprising_energy_in_ev_is_no_other_unit(energy: float) -> None:
    assert unit_of(Labels(energy, FORCES), EXPECTED) == ""


def test_two_computations_agree_within_scf_noise_only() -> None:
    first = Labels(-10.0, FORCES)
    assert disagreement(first, Labels(-10.002, FORCES + 0.01)) == ""
    assert "energies" in disagreement(first, Labels(-10.2, FORCES))
    assert "forces" in disagreement(first, Labels(-10.0, FORCES * 1.5))


# --- equivalent structures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_an_equivalent_structure_has_equivalent_labels(seed: int) -> None:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.symbols[1] = "Ag"
    atoms.set_cell(np.asarray(atoms.cell) + 0.1 * np.random.default_rng(seed).normal(size=(3, 3)), scale_atoms=True)
    atoms.rattle(0.1, seed=seed)
    frame = frame_of(atoms)
    equivalent = Equivalent.of(frame, np.random.default_rng(seed))
    assert equivalent.frame.uid != frame.uid
    original, other = (emt(f.atoms) for f in (frame, equivalent.frame))
    back = equivalent.labels_of_original(other)
    assert back.energy == pytest.approx(original.energy, abs=1e-4)
    np.testing.assert_allclose(back.forces, original.forces, atol=1e-3)
    assert back.stress is not None
    assert original.stress is not None
    np.testing.assert_allclose(back.stress, original.stress, atol=1e-4)


def emt(atoms: Atoms) -> Labels:
    atoms = atoms.copy()
    atoms.calc = EMT()
    return Labels(float(atoms.get_potential_energy()), atoms.get_forces(), atoms.get_stress())
