"""The ensembles are the ones they claim to be: known distributions, conserved quantities, order of the error."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

from al_leignn.explore.integrators import (
    Coupling,
    State,
    anisotropic,
    draw_velocities,
    full,
    isotropic,
    langevin,
    npt_step,
    nve_step,
    nvt_step,
    rescale_velocities,
)
from al_leignn.explore.neighbours import Neighbours
from al_leignn.model.graph import trim
from al_leignn.units import FS, GPA, KB


def state_of(walkers: int, atoms: int, *, temperature: float = 300.0, pressure: float = 0.0, mass: float = 40.0) -> State:
    """Equal walkers in cubes of 10 Å, all atoms at rest in the origin."""
    n = walkers * atoms
    one = torch.ones(walkers, dtype=torch.float64)
    zeros = torch.zeros(n, 3, dtype=torch.float64)
    return State(
        streams=[np.random.default_rng([0, w]) for w in range(walkers)],
        counts=[atoms] * walkers,
        walker=torch.arange(walkers).repeat_interleave(atoms),
        masses=torch.full((n, 1), mass, dtype=torch.float64),
        positions=zeros.clone(),
        velocities=zeros.clone(),
        forces=zeros.clone(),
        cells=10.0 * torch.eye(3, dtype=torch.float64).repeat(walkers, 1, 1),
        energy=0.0 * one,
        stress=torch.zeros(walkers, 3, 3, dtype=torch.float64),
        targets=temperature * one,
        pressures=pressure * one,
        dof=3.0 * atoms * one,
        heat=0.0 * one,
    )


def argon_crystal(potential: Any, temperature: float = 40.0) -> tuple[State, Callable[[], None]]:
    """32 atoms with forces by `potential`, evaluated once."""
    atoms = bulk("Ar", cubic=True, a=5.3) * (2, 2, 2)
    state = state_of(1, len(atoms), temperature=temperature)
    state.positions = torch.tensor(atoms.positions)
    lists = Neighbours.of([atoms], potential.cutoff, potential.species, flexible=True)
    state.cells = lists.cells.clone()
    state.velocities = draw_velocities(state)

    def forces() -> None:
        lists.update(state.positions, state.cells)
        graph = trim(lists.graph(state.positions, state.cells), potential.cutoff)
        output = potential.evaluate(graph, stress=True)
        state.forces, state.energy, state.stress = output.forces.mean(0), output.energy.mean(0), output.stress.mean(0)

    forces()
    return state, forces


def test_velocities_follow_maxwell_and_boltzmann() -> None:
    state = state_of(2, 5000)
    state.targets[1] = 1200.0
    state.masses[::2] = 1.0
    velocities = draw_velocities(state)
    for walker, temperature in ((0, 300.0), (1, 1200.0)):
        for mass in (1.0, 40.0):
            mine = (state.walker == walker) & (state.masses.squeeze(1) == mass)
            variance = velocities[mine].square().mean() * mass / (KB * temperature)
            assert float(variance) == pytest.approx(1.0, abs=5 * np.sqrt(2 / (3 * int(mine.sum()))))


def test_langevin_kinetic_temperature_has_the_mean_and_variance_of_chi_square() -> None:
    """Free of forces the thermostat alone decides; each walker keeps its own target."""
    state = state_of(40, 4)
    state.targets[20:] = 900.0
    seen = []
    for _ in range(1500):
        nvt_step(state, lambda: None, dt=5 * FS, thermostat=partial(langevin, friction=0.2 / FS))
        seen.append(state.temperature().numpy() / state.targets.numpy())
    for part in (np.array(seen)[:, :20], np.array(seen)[:, 20:]):
        assert part.mean() == pytest.approx(1.0, abs=0.02)
        assert part.var() == pytest.approx(2 / 12, rel=0.05)


def test_velocity_rescaling_gives_chi_square_too_and_keeps_momentum() -> None:
    state = state_of(40, 4)
    state.velocities = draw_velocities(state)
    momentum = (state.masses * state.velocities).view(40, 4, 3).sum(1)
    state.velocities -= (momentum / 160.0)[state.walker]
    state.dof -= 3.0
    seen = []
    for _ in range(1500):
        nvt_step(state, lambda: None, dt=5 * FS, thermostat=partial(rescale_velocities, friction=0.1 / FS))
        seen.append(state.temperature().numpy() / 300.0)
    assert np.mean(seen) == pytest.approx(1.0, abs=0.02)
    assert np.var(seen) == pytest.approx(2 / 9, rel=0.05)
    assert float((state.masses * state.velocities).view(40, 4, 3).sum(1).abs().max()) < 1e-9


def correlation_time(seen: np.ndarray) -> float:
    """Of columns of equal variance, in steps, from the correlation at a lag of 20."""
    apart = seen - seen.mean()
    return float(-20 / np.log((apart[20:] * apart[:-20]).mean() / apart.var()))


@pytest.mark.parametrize("thermostat", [langevin, rescale_velocities])
def test_both_thermostats_renew_kinetic_energies_at_twice_the_friction(thermostat: Any) -> None:
    state = state_of(300, 10)
    state.velocities = draw_velocities(state)
    seen = []
    for _ in range(400):
        nvt_step(state, lambda: None, dt=FS, thermostat=partial(thermostat, friction=0.02 / FS))
        seen.append(state.kinetic().numpy())
    assert correlation_time(np.array(seen)) == pytest.approx(25.0, rel=0.1)


@pytest.mark.parametrize("steps_per_period", [40, 8])
def test_langevin_positions_are_exact_in_a_harmonic_well_at_any_step(steps_per_period: int) -> None:
    """BAOAB has no time-step error here: <k x^2> = kT even with eight steps to a period."""
    state = state_of(1, 3000)
    stiffness = 2.0
    omega = np.sqrt(stiffness / 40.0)

    def forces() -> None:
        state.forces = -stiffness * state.positions

    squares = []
    dt = 2 * np.pi / omega / steps_per_period
    for step in range(20 * steps_per_period):
        nvt_step(state, forces, dt=dt, thermostat=partial(langevin, friction=omega))
        if step > 5 * steps_per_period:
            squares.append(float(state.positions.square().mean()))
    assert stiffness * np.mean(squares) / (KB * 300.0) == pytest.approx(1.0, abs=0.015)


def test_heat_accounts_for_what_the_thermostat_puts_in() -> None:
    """Without forces, all kinetic energy came from the thermostat."""
    state = state_of(3, 10)
    for _ in range(50):
        nvt_step(state, lambda: None, dt=FS, thermostat=partial(langevin, friction=0.05 / FS))
    torch.testing.assert_close(state.kinetic(), state.heat)


def test_verlet_energy_error_falls_with_the_square_of_the_step(lennard_jones: Any) -> None:
    def error(dt: float) -> float:
        state, forces = argon_crystal(lennard_jones(cutoff=5.2), 60.0)
        start = float(state.energy + state.kinetic())
        totals = []
        for _ in range(round(400 / dt)):
            nve_step(state, forces, dt=dt * FS)
            totals.append(float(state.energy + state.kinetic()))
        return float(np.std(np.array(totals) - start))

    coarse, fine = error(16.0), error(8.0)
    assert coarse / fine == pytest.approx(4.0, rel=0.15)


def test_verlet_is_reversible_and_keeps_momentum(lennard_jones: Any) -> None:
    state, forces = argon_crystal(lennard_jones(cutoff=5.2), 80.0)
    start, momentum = state.positions.clone(), (state.masses * state.velocities).sum(0)
    cell = float(state.cells[0, 0, 0])
    for _ in range(60):
        nve_step(state, forces, dt=5 * FS)
    torch.testing.assert_close((state.masses * state.velocities).sum(0), momentum, atol=1e-10, rtol=0)
    state.velocities *= -1
    for _ in range(60):
        nve_step(state, forces, dt=5 * FS)
    back = (state.positions - start) / cell
    assert float((back - back.round()).abs().max()) < 1e-10


@pytest.mark.parametrize("coupling", [isotropic, anisotropic, full])
def test_volumes_of_an_ideal_gas_follow_the_gamma_distribution(coupling: Coupling) -> None:
    """p(V) ~ V^N exp(-PV/kT): mean (N+1) kT/P and variance (N+1) (kT/P)^2, whatever the velocities are; nothing to tune."""
    atoms, temperature, pressure = 10, 2000.0, 10 * GPA
    state = state_of(120, atoms, temperature=temperature, pressure=pressure)
    state.cells *= ((atoms + 1) * KB * temperature / pressure) ** (1 / 3) / 10.0
    state.velocities = draw_velocities(state)
    volumes, kinetic = [], []
    for step in range(1000):
        npt_step(state, lambda: None, dt=10 * FS, thermostat=partial(langevin, friction=0.001 / FS), coupling=coupling)
        if step > 200:
            volumes.append(state.volume().numpy())
            kinetic.append(state.kinetic().numpy())
    reduced = np.array(volumes) * pressure / (KB * temperature)
    assert reduced.mean() == pytest.approx(atoms + 1, rel=0.025)
    assert reduced.var() == pytest.approx(atoms + 1, rel=0.1)
    assert abs(np.corrcoef(reduced.ravel(), np.ravel(kinetic))[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("coupling", "thermostat"),
    [(isotropic, langevin), (anisotropic, langevin), (full, langevin), (full, rescale_velocities)],
)
def test_a_crystal_under_pressure_feels_that_pressure_on_average(lennard_jones: Any, coupling: Coupling, thermostat: Any) -> None:
    """In each direction that the cell may follow, even from a cell that was pulled out of shape."""
    state, forces = argon_crystal(lennard_jones(cutoff=5.2), 40.0)
    state.pressures[:] = 2.0 * GPA
    if coupling is full:
        shear = torch.eye(3, dtype=torch.float64)
        shear[0, 1] = 0.05
        state.cells, state.positions = state.cells @ shear, state.positions @ shear
    pressures = []
    for step in range(800):
        npt_step(state, forces, dt=20 * FS, thermostat=partial(thermostat, friction=0.005 / FS), coupling=coupling)
        if step > 250:
            moving = torch.einsum("i,ia,ib->ab", state.masses.squeeze(1), state.velocities, state.velocities)
            pressures.append((moving / state.volume() - state.stress[0]).numpy() / GPA)
    mean = np.mean(pressures, axis=0)
    assert mean.trace() / 3 == pytest.approx(2.0, abs=0.1)
    if coupling is not isotropic:
        assert mean.diagonal() == pytest.approx([2.0] * 3, abs=0.2)
    if coupling is full:
        assert mean[np.triu_indices(3, 1)] == pytest.approx([0.0] * 3, abs=0.15)
    else:
        assert float((state.cells[0] - torch.diag(state.cells[0].diagonal())).abs().max()) == 0.0


def test_a_mad_pressure_does_not_turn_the_cell_inside_out() -> None:
    state = state_of(1, 4, pressure=1e6 * GPA)
    state.stress[:] = 1e9 * torch.eye(3, dtype=torch.float64)
    npt_step(state, lambda: None, dt=FS, thermostat=partial(langevin, friction=0.005 / FS), coupling=isotropic)
    assert float(state.volume()) == pytest.approx(1000 * np.exp(-0.1 * 3**0.5))


def test_selected_walkers_keep_their_share_of_everything() -> None:
    state = state_of(3, 2)
    state.counts = [1, 3, 2]
    state.walker = torch.tensor([0, 1, 1, 1, 2, 2])
    state.positions = torch.arange(18, dtype=torch.float64).view(6, 3)
    state.targets = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    kept = state.select([1, 2])
    assert kept.counts == [3, 2]
    assert kept.walker.tolist() == [0, 0, 0, 1, 1]
    torch.testing.assert_close(kept.positions, state.positions[1:])
    assert kept.targets.tolist() == [2.0, 3.0]
    kept.positions += 1.0
    assert float(state.positions[1, 0]) == 3.0
