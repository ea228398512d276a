"""Crystals whose elasticity and vibrations are known: springs between nearest neighbours; and a metal that must be consistent."""

from typing import Any

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress

from al_leignn.errors import RunError
from al_leignn.units import GPA
from al_leignn.validate.crystal import crystal_properties

STIFFNESS, SIDE = 3.0, 4.0
"""eV/Å^2 and Å."""


class Springs(Calculator):
    """Every two nearest neighbours of a face-centred cubic crystal are joined by a spring of their distance at rest."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = ["energy", "forces", "stress"]

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        length = SIDE / np.sqrt(2)
        i, vectors, distances = neighbor_list("iDd", atoms, 1.2 * length)
        stretch = distances - length
        pull = (STIFFNESS * stretch / distances)[:, None] * vectors
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, pull)
        stress = 0.5 * np.einsum("pa,pb->ab", pull, vectors) / atoms.get_volume()
        self.results = {
            "energy": 0.25 * STIFFNESS * float(np.square(stretch).sum()),
            "forces": forces,
            "stress": full_3x3_to_voigt_6_stress(stress),
        }


def test_springs_in_a_cubic_crystal() -> None:
    """C11 = 2k/a, C12 = C44 = k/a (Born and Huang); at the zone boundary X: mω² = 8k along, 4k across the wave."""
    pytest.importorskip("phonopy")
    found = crystal_properties(bulk("Cu", "fcc", a=SIDE, cubic=True), Springs(), supercell=(2, 2, 2))
    modulus = STIFFNESS / SIDE / GPA
    expected = np.zeros((6, 6))
    expected[:3, :3] = modulus
    expected[np.arange(6), np.arange(6)] = modulus * np.array([2, 2, 2, 1, 1, 1])
    np.testing.assert_allclose(found.elastic, expected, atol=1e-3 * modulus)
    assert found.bulk_modulus == pytest.approx(4 / 3 * modulus, rel=0.01)
    assert found.volume == pytest.approx(SIDE**3 / 4, rel=1e-3)
    assert found.energy == pytest.approx(0.0, abs=1e-4)
    assert found.frequencies is not None
    assert found.frequencies.shape[1] == 12
    thz = np.sqrt(STIFFNESS / 63.546) * units.fs * 1e3 / (2 * np.pi)
    assert found.frequencies.min() == pytest.approx(0.0, abs=1e-3 * thz)  # sound at Γ, and nothing is unstable
    assert found.frequencies.max() == pytest.approx(np.sqrt(8) * thz, rel=1e-3)


def test_a_metal_and_a_stiffer_one() -> None:
    """Two routes to one bulk modulus; a potential whose energies are all 5 % larger has moduli 5 % larger."""

    class Stiffer(EMT):
        def calculate(self, *words: Any, **keys: Any) -> None:
            super().calculate(*words, **keys)  # type: ignore[no-untyped-call]
            self.results = {name: 1.05 * np.asarray(value) for name, value in self.results.items() if name != "energies"}
            self.results["energy"] = float(self.results["energy"])

    copper = bulk("Cu", "fcc", a=3.7, cubic=True)  # strained: it has to be relaxed
    found, stiffer = (crystal_properties(copper, calculator) for calculator in (EMT(), Stiffer()))  # type: ignore[no-untyped-call]
    assert found.volume == pytest.approx(3.59**3 / 4, rel=0.01)
    c11, c12, c44 = found.elastic[0, 0], found.elastic[0, 1], found.elastic[3, 3]
    assert (c11 + 2 * c12) / 3 == pytest.approx(found.bulk_modulus, rel=0.02)
    assert c11 > c12 > 0
    assert c44 > 0
    assert found.energies.min() >= -1e-5
    assert stiffer.bulk_modulus == pytest.approx(1.05 * found.bulk_modulus, rel=2e-3)
    np.testing.assert_allclose(stiffer.elastic, 1.05 * found.elastic, atol=0.5)
    if found.frequencies is not None and stiffer.frequencies is not None:
        assert stiffer.frequencies.max() == pytest.approx(np.sqrt(1.05) * found.frequencies.max(), rel=2e-3)


def test_what_never_comes_to_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("al_leignn.validate.crystal.MOST_STEPS", 1)
    with pytest.raises(RunError, match="not at rest after 1 steps"):
        crystal_properties(bulk("Cu", "fcc", a=3.8), EMT())
