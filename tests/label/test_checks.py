"""Bad geometries and bad labels are named; good ones pass."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from al_leignn.core import Frame, LabelFailure, Labels, Origin
from al_leignn.label.checks import FORCE_CAP, check_labels, screen_geometry


def frame_of(atoms: Atoms) -> Frame:
    return Frame.of(atoms, Origin("given"))


PAIR = frame_of(Atoms("SiSi", positions=[[0, 0, 0], [0, 0, 2.3]]))
FORCES = np.array([[0.1, 0.0, 0.5], [-0.1, 0.0, -0.5]])
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
    assert check_labels(PAIR, labels) is labels


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (Labels(float("nan"), FORCES), "bad output"),
        (Labels(float("inf"), FORCES), "bad output"),
        (Labels(-1.0, FORCES[:1]), "bad output"),
        (Labels(-1.0, FORCES, np.array([0, 0, np.nan, 0, 0, 0])), "bad output"),
        (Labels(-1.0, np.where(FORCES > 0.3, np.nan, FORCES)), "forces"),
        (Labels(-1.0, FORCES * 2.1 * FORCE_CAP), "forces"),
        (Labels(-1.0, FORCES + PUSH), "forces"),  # a net force
    ],
)
def test_bad_labels_are_named(labels: Labels, reason: str) -> None:
    result = check_labels(PAIR, labels)
    assert isinstance(result, LabelFailure)
    assert result.reason == reason
    assert result.uid == PAIR.uid
    assert result.detail


def test_a_net_force_counts_relative_to_the_forces() -> None:
    assert isinstance(check_labels(PAIR, Labels(-1.0, FORCES * 20 + PUSH / 5)), Labels)
    assert isinstance(check_labels(PAIR, Labels(-1.0, FORCES * 0.1 + PUSH / 5)), LabelFailure)
