"""Gates pass for potentials that obey the laws and fail for one that breaks each."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from al_leignn.validate.physics import extensivity, force_consistency, nve_drift, repulsive_wall


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    return atoms


def argon() -> Atoms:
    atoms = bulk("Ar", "fcc", 5.26, cubic=True)
    atoms.rattle(0.05, seed=0)
    return atoms


def lennard_jones() -> LennardJones:
    return LennardJones(sigma=3.4, epsilon=0.0104, rc=6.0, smooth=True)


Law = Callable[[Atoms], tuple[float, np.ndarray]]


class Toy(Calculator):
    """A calculator made from one function of the atoms: energy and forces."""

    def __init__(self, law: Law) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = ["energy", "forces"]
        self.law = law

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        energy, forces = self.law(atoms)
        self.results = {"energy": energy, "forces": forces}


def centred(atoms: Atoms) -> np.ndarray:
    return np.asarray(atoms.positions - atoms.positions.mean(axis=0))


def curl(atoms: Atoms) -> tuple[float, np.ndarray]:
    """EMT plus a force that is no gradient: it drives every atom round in circles."""
    inner = atoms.copy()
    inner.calc = EMT()
    return inner.get_potential_energy(), inner.get_forces() + 0.3 * np.cross([0.0, 0.0, 1.0], centred(atoms))


def spring(atoms: Atoms) -> tuple[float, np.ndarray]:
    """Harmonic bonds to the centre: conservative, and the nearer the atoms the lower the energy."""
    return float((centred(atoms) ** 2).sum()), -2 * centred(atoms)


def slack(atoms: Atoms) -> tuple[float, np.ndarray]:
    energy, forces = spring(atoms)
    return energy, 0.9 * forces


def broken(atoms: Atoms) -> tuple[float, np.ndarray]:
    return float("nan"), np.full((len(atoms), 3), np.nan)


def sticky_oxygen(atoms: Atoms) -> tuple[float, np.ndarray]:
    """Hydrogens repel each other; the oxygen draws them in, down to nothing."""
    to_first, to_second, apart = (float(atoms.get_distance(i, j)) for i, j in ((0, 1), (0, 2), (1, 2)))
    return to_first + to_second + 1 / apart, np.zeros((3, 3))


@pytest.mark.parametrize(("atoms", "calculator"), [(copper(), EMT()), (argon(), lennard_jones()), (molecule("H2O"), EMT())])
def test_conservative_potentials_pass(atoms: Atoms, calculator: Calculator) -> None:
    rng = np.random.default_rng(0)
    before = atoms.copy()
    gates = [
        nve_drift(atoms, calculator, rng, steps=300, timestep_fs=0.5 if "H" in atoms.symbols else 1.0),
        force_consistency(atoms, calculator, rng),
        repulsive_wall(atoms, calculator),
    ]
    for gate in gates:
        assert gate.passed, gate
        assert json.dumps(gate.to_dict(), allow_nan=False)
    assert atoms == before
    assert atoms.calc is None


def test_a_force_that_is_no_gradient_is_found_twice() -> None:
    drift = nve_drift(copper(), Toy(curl), np.random.default_rng(0), steps=200)
    assert not drift.passed
    assert drift.value > 10 * drift.limit
    assert not force_consistency(copper(), Toy(curl), np.random.default_rng(0)).passed


def test_a_wrong_force_scale_is_found() -> None:
    assert not force_consistency(copper(), Toy(slack), np.random.default_rng(0)).passed
    assert force_consistency(copper(), Toy(spring), np.random.default_rng(0)).passed


def test_attraction_at_short_range_is_found() -> None:
    gate = repulsive_wall(copper(), Toy(spring))
    assert not gate.passed
    assert gate.value < 0
    assert gate.detail == "Cu-Cu"


def test_the_wall_is_tried_for_every_pair_of_neighbours() -> None:
    gate = repulsive_wall(molecule("H2O"), Toy(sticky_oxygen))
    assert not gate.passed
    assert gate.detail == "H-O"


def test_no_atom_is_crushed_between_two_others() -> None:
    """The oxygens of CO2 have the carbon between them: only C-O is tried."""
    tried: list[float] = []

    def watch(atoms: Atoms) -> tuple[float, np.ndarray]:
        tried.append(atoms.get_all_distances()[np.triu_indices(3, 1)].min())
        return -float(len(tried)), np.zeros((3, 3))

    assert repulsive_wall(molecule("CO2"), Toy(watch)).detail == "C-O"
    assert min(tried) == pytest.approx(0.6 * (0.76 + 0.66))


def test_nan_fails_every_gate() -> None:
    rng = np.random.default_rng(0)
    toy = Toy(broken)
    for gate in (nve_drift(copper(), toy, rng, steps=20), force_consistency(copper(), toy, rng), repulsive_wall(copper(), toy)):
        assert not gate.passed
        assert json.dumps(gate.to_dict(), allow_nan=False)


def test_too_short_a_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 20 steps"):
        nve_drift(copper(), EMT(), np.random.default_rng(0), steps=5)


def test_same_seed_same_number() -> None:
    one, two = (nve_drift(copper(), EMT(), np.random.default_rng(4), steps=20).value for _ in range(2))
    assert one == two


def test_two_of_the_same_cost_twice_as_much() -> None:
    for atoms, calculator in ((copper(), EMT()), (argon(), lennard_jones()), (molecule("CO"), EMT())):
        before = atoms.positions.copy()
        gate = extensivity(atoms, calculator)
        assert gate.passed, gate
        assert gate.value < 1e-8
        np.testing.assert_array_equal(atoms.positions, before)


@pytest.mark.parametrize("law", [spring, broken], ids=["tied to the centre of mass", "not finite"])
def test_atoms_that_feel_how_many_there_are_fail(law: Law) -> None:
    for atoms in (copper(), molecule("CO")):
        gate = extensivity(atoms, Toy(law))
        assert not gate.passed
        json.dumps(gate.to_dict(), allow_nan=False)
