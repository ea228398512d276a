"""The ASE calculator: ASE's conventions, caching, and what the members disagree by."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from ase.md.verlet import VelocityVerlet

from al_leignn.deviation import deviation
from al_leignn.errors import ConfigError, StructureError
from al_leignn.model.calculator import LeignnCalculator
from al_leignn.model.committee import Committee
from al_leignn.model.leignn import LEIGNN
from al_leignn.validate.physics import nve_drift

MakeModel = Callable[..., LEIGNN]
MakeAtoms = Callable[[int], Atoms]


@pytest.fixture
def committee(make_model: MakeModel) -> Committee:
    return Committee([make_model(seed=k) for k in range(3)])


def test_results_are_the_mean_and_spread_of_the_members(committee: Committee, crystal: MakeAtoms) -> None:
    atoms = crystal(0)
    atoms.calc = committee.calculator()
    prediction = committee.predict([atoms])[0]
    mean, spread = prediction.mean(), deviation(prediction)
    assert atoms.get_potential_energy() == pytest.approx(mean.energy, rel=1e-12)
    assert atoms.get_potential_energy(force_consistent=True) == pytest.approx(mean.energy, rel=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), mean.forces, atol=1e-10)
    assert mean.stress is not None
    np.testing.assert_allclose(atoms.get_stress(), mean.stress, atol=1e-12)
    results = atoms.calc.results
    np.testing.assert_allclose(atoms.get_potential_energies().sum(), mean.energy, rtol=1e-12)
    np.testing.assert_allclose(results["forces_std"], prediction.forces.std(axis=0), atol=1e-10)
    np.testing.assert_allclose(results["force_deviation"], np.linalg.norm(results["forces_std"], axis=1), rtol=1e-12)
    np.testing.assert_allclose(results["force_deviation"], spread.per_atom, rtol=1e-9)
    assert results["max_force_deviation"] == results["force_deviation"].max()
    assert results["energy_std"] == pytest.approx(prediction.energy.std(), rel=1e-9)


def test_stress_agrees_with_ases_finite_differences(committee: Committee, crystal: MakeAtoms) -> None:
    atoms = crystal(0)
    atoms.calc = committee.calculator()
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), numerical, atol=1e-7)


def test_stress_needs_three_periodic_directions(committee: Committee, make_atoms: MakeAtoms) -> None:
    atoms = make_atoms(0)
    atoms.calc = committee.calculator()
    atoms.get_forces()
    if atoms.pbc.all():
        assert atoms.get_stress().shape == (6,)
    else:
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


def test_results_are_computed_once_per_structure(committee: Committee, crystal: MakeAtoms) -> None:
    atoms = crystal(0)
    atoms.calc = calc = committee.calculator()
    atoms.get_forces(), atoms.get_potential_energy(), atoms.get_stress()
    assert calc.evaluations == 1
    atoms.set_initial_charges([0.1] * len(atoms))
    atoms.get_forces()
    assert calc.evaluations == 1
    before = atoms.get_forces()
    before[:] = 0.0  # what the caller does to a result is no matter to the next
    assert np.abs(atoms.get_forces()).max() > 0.0
    for change in (
        lambda: atoms.positions.__setitem__((0, 0), atoms.positions[0, 0] + 1e-8),
        lambda: atoms.set_cell(atoms.cell.array * 1.0001, scale_atoms=True),
        lambda: setattr(atoms, "pbc", (True, True, False)),
        lambda: atoms.numbers.__setitem__(0, 1),
    ):
        count = calc.evaluations
        change()
        atoms.get_potential_energy()
        assert calc.evaluations == count + 1


def test_a_long_run_equals_calculators_made_anew(committee: Committee, crystal: MakeAtoms) -> None:
    atoms = crystal(0)
    rng = np.random.default_rng(0)
    reused = committee.calculator(skin=0.4)
    for step in range(10):
        atoms.positions += rng.normal(scale=0.03, size=(8, 3))
        if step % 3 == 0:
            atoms.wrap()
        if step % 4 == 0:
            atoms.set_cell(atoms.cell.array * (1 + rng.normal(scale=0.01)), scale_atoms=True)
        atoms.calc = reused
        forces, stress = atoms.get_forces(), atoms.get_stress()
        atoms.calc = committee.calculator(skin=0.0)
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-9)
        np.testing.assert_allclose(stress, atoms.get_stress(), atol=1e-11)


def test_one_member_drives_and_the_others_look_now_and_then(committee: Committee, crystal: MakeAtoms) -> None:
    atoms = crystal(0)
    atoms.calc = calc = committee.calculator(driver=1, deviation_every=3)
    seen = []
    for _ in range(7):
        atoms.positions[0, 0] += 0.01
        prediction = committee.predict([atoms])[0]
        np.testing.assert_allclose(atoms.get_forces(), prediction.forces[1], atol=1e-10)
        assert atoms.get_potential_energy() == pytest.approx(prediction.energy[1], rel=1e-12)
        seen.append("force_deviation" in calc.results)
        if seen[-1]:
            np.testing.assert_allclose(calc.results["forces_std"], prediction.forces.std(axis=0), atol=1e-10)
    assert seen == [True, False, False, True, False, False, True]


def test_another_precision_leaves_the_committee_alone(committee: Committee, crystal: MakeAtoms) -> None:
    calc = committee.calculator(dtype=torch.float32)
    assert calc.committee.members[0].dtype == torch.float32
    assert committee.members[0].dtype == torch.float64
    atoms = crystal(0)
    atoms.calc = calc
    np.testing.assert_allclose(atoms.get_forces(), committee.predict([atoms])[0].forces.mean(axis=0), atol=1e-3)


def test_a_committee_of_one_has_no_deviation(make_model: MakeModel, crystal: MakeAtoms) -> None:
    atoms = crystal(0)
    atoms.calc = Committee([make_model()]).calculator()
    atoms.get_forces()
    assert "force_deviation" not in atoms.calc.results


@pytest.mark.parametrize(
    "options", [{"driver": 3}, {"driver": -1}, {"deviation_every": 0}, {"deviation_every": 2}, {"skin": -1.0}]
)
def test_impossible_options_are_refused(committee: Committee, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LeignnCalculator(committee, **options)  # type: ignore[arg-type]


def test_a_bad_structure_leaves_no_old_results(committee: Committee, crystal: MakeAtoms) -> None:
    atoms = crystal(0)
    atoms.calc = committee.calculator()
    atoms.get_forces()
    good = atoms.positions.copy()
    atoms.positions[0] = np.nan
    for _ in range(2):
        with pytest.raises(StructureError):
            atoms.get_forces()
    atoms.positions = good
    assert np.isfinite(atoms.get_forces()).all()


def test_energy_is_conserved_in_microcanonical_dynamics(make_model: MakeModel, crystal: MakeAtoms) -> None:
    atoms = crystal(0)
    atoms.calc = Committee([make_model()]).calculator(skin=0.5)
    atoms.set_momenta(np.random.default_rng(0).normal(size=(8, 3)) * np.sqrt(units.kB * 300 * atoms.get_masses())[:, None])
    drifts = []
    for timestep in (0.4, 0.2):
        copy = atoms.copy()
        copy.calc = atoms.calc
        dynamics = VelocityVerlet(copy, timestep=timestep * units.fs)
        energies = []
        for _ in range(20):
            dynamics.run(int(0.8 / timestep))
            copy.wrap()
            energies.append(copy.get_total_energy())
        drifts.append(np.ptp(energies))
    # Verlet's error shrinks with the square of the time step.
    assert drifts[1] < 0.4 * drifts[0]
    assert drifts[1] / len(atoms) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_trained_model_drifts_by_less_than_a_tenth_of_a_millielectronvolt(
    trained: list[LEIGNN], metal: MakeAtoms, dtype: torch.dtype
) -> None:
    """Per atom and picosecond, at a time step of 2 fs."""
    atoms = metal(0) * (2, 2, 2)
    calculator = Committee(trained).calculator(dtype=dtype)
    gate = nve_drift(atoms, calculator, np.random.default_rng(0), temperature=300.0, steps=300, timestep_fs=2.0, limit=0.1)
    assert calculator.committee.compiled
    assert gate.passed
    assert gate.value < 0.1
