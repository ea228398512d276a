"""Systems with known answers through the engine that campaigns use: argon by Lennard-Jones, copper by effective medium theory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

from al_leignn.config import ExploreConfig
from al_leignn.explore.batch import Batch, Settings, Walker
from al_leignn.explore.driver import Evaluation
from al_leignn.explore.watchdog import Limits
from al_leignn.model.graph import Graph
from al_leignn.units import GPA
from tests.explore.conftest import Outcome


@dataclass
class Copper:
    """ASE's effective medium theory, asked structure by structure."""

    species: tuple[int, ...] = (29,)
    cutoff: float = 6.0
    conservative: bool = True
    size_consistent: bool = True
    compiled: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return 1

    def evaluate(self, graph: Graph, members: Sequence[int] | None = None, *, stress: bool = False) -> Evaluation:
        energies, forces, stresses = [], [], []
        for n in range(graph.n_structures):
            mine = graph.structure == n
            atoms = Atoms(["Cu"] * int(mine.sum()), graph.positions[mine].numpy(), cell=graph.cell[n].numpy(), pbc=True)
            atoms.calc = EMT()
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
            stresses.append(atoms.get_stress(voigt=False))
        one = torch.tensor
        return Outcome(
            energy=one([energies]),
            node_energy=torch.zeros(1, graph.n_atoms),
            forces=one(np.concatenate(forces)).unsqueeze(0),
            stress=one(np.array(stresses)).unsqueeze(0),
        )


def started(potential: Any, walkers: Sequence[Walker], **settings: Any) -> Batch:
    config = ExploreConfig(**({"driver": "mean"} | settings))
    return Batch.start(potential, walkers, Settings(config, 0, Limits()), np.random.SeedSequence(5))


def run(batch: Batch, steps: int) -> list[Any]:
    """Volumes after every step."""
    volumes = []
    for step in range(1, steps + 1):
        batch.step(step, everyone=False)
        volumes.append(batch.state.volume().clone())
    return volumes


def argon(a: float, n: int = 2) -> Atoms:
    atoms: Atoms = bulk("Ar", cubic=True, a=a) * (n, n, n)
    return atoms


def test_equation_of_state(lennard_jones: Any) -> None:
    """Cold walkers under pressure take the volume at which -dE/dV is that pressure."""
    potential = lennard_jones(cutoff=6.0)
    constants = np.linspace(4.9, 5.4, 11)
    static = started(potential, [Walker(n, argon(a), 1.0) for n, a in enumerate(constants)], ensemble="npt")
    pressures = -static.state.stress.diagonal(dim1=1, dim2=2).mean(1).numpy() / GPA
    energies, volumes = static.state.energy.numpy(), static.state.volume().numpy()
    assert -np.gradient(energies, volumes)[1:-1] / GPA == pytest.approx(pressures[1:-1], abs=0.1)
    targets = (0.5, 1.5)
    walkers = [Walker(n, argon(5.15), 1.0, pressure=p) for n, p in enumerate(targets)]
    batch = started(potential, walkers, ensemble="npt", timestep_fs=10.0, steps=600)
    found = torch.stack(run(batch, 600)[300:]).mean(0).numpy()
    assert np.interp(found, volumes, pressures) == pytest.approx(targets, abs=0.05)


def test_copper_keeps_the_lattice_constant_of_its_potential() -> None:
    constants = np.linspace(3.5, 3.7, 9)
    energies = []
    for a in constants:
        atoms = bulk("Cu", cubic=True, a=a) * (2, 2, 2)
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    expected = -np.polyfit(constants, energies, 2)[1] / (2 * np.polyfit(constants, energies, 2)[0])
    start = bulk("Cu", cubic=True, a=3.65) * (2, 2, 2)
    batch = started(Copper(), [Walker(0, start, 2.0)], ensemble="npt", cell="full", timestep_fs=4.0, steps=150)
    volumes = torch.stack(run(batch, 150)[75:])
    assert float(volumes.mean() / 8) ** (1 / 3) == pytest.approx(expected, abs=0.01)


def test_solids_expand_when_warmed(lennard_jones: Any) -> None:
    walkers = [Walker(n, argon(5.3), t) for n, t in enumerate((5.0, 25.0, 45.0) * 2)]
    batch = started(lennard_jones(cutoff=6.0), walkers, ensemble="npt", timestep_fs=10.0, steps=1000)
    cold, warm, hot = torch.stack(run(batch, 1000)[400:]).mean(0).view(2, 3).mean(0).tolist()
    for rate in (np.log(warm / cold) / 20.0, np.log(hot / warm) / 20.0):
        assert 3e-4 < rate < 2.5e-3  # argon: 0.5e-3 to 1.5e-3 per kelvin between 20 and 60 K


def test_a_crystal_melts_on_heating_and_not_before(lennard_jones: Any) -> None:
    """A ramp far beyond the melting point (84 K), and a walker that stays cold beside it."""
    crystal = argon(5.4, 3)
    walkers = [Walker(0, crystal, (20.0, 400.0), pressure=0.1), Walker(1, crystal, 20.0, pressure=0.1)]
    batch = started(lennard_jones(cutoff=5.5), walkers, ensemble="npt", timestep_fs=10.0, steps=1000)
    run(batch, 1000)
    melted, cold = (order(atoms) for atoms in batch.structures())
    assert cold > 0.8
    assert melted < 0.3


def order(atoms: Atoms) -> float:
    """Structure factor at the first reciprocal lattice vectors of the 3 x 3 x 3 crystal: 1 if perfect, near 0 without order."""
    vectors = 3 * np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]])
    phases = 2j * np.pi * atoms.get_scaled_positions() @ vectors.T
    return float(np.mean(np.abs(np.exp(phases).mean(axis=0)) ** 2))


def test_energy_and_momentum_do_not_drift(lennard_jones: Any) -> None:
    batch = started(
        lennard_jones(cutoff=5.5), [Walker(n, argon(5.35), 40.0) for n in range(2)], ensemble="nve", timestep_fs=5.0, steps=800
    )
    totals = []
    for step in range(1, 801):
        batch.step(step, everyone=False)
        totals.append((batch.state.energy + batch.state.kinetic()).numpy() / 32)
    slope = np.polyfit(np.arange(800) * 0.005, np.array(totals), 1)[0]
    assert np.abs(slope).max() < 1e-6  # eV/atom/ps
    momentum = (batch.state.masses * batch.state.velocities).view(2, 32, 3).sum(1)
    assert float(momentum.abs().max()) < 1e-9


def test_a_molecule_in_vacuum_keeps_its_angular_momentum(springs: Any) -> None:
    molecule = Atoms("Ar4", [[0, 0, 0], [2, 0, 0], [1, 1.7, 0], [1, 0.6, 1.6]])
    batch = started(springs(cutoff=3.5), [Walker(0, molecule, 300.0)], ensemble="nve", timestep_fs=1.0, steps=500)

    def angular() -> Any:
        centred = batch.state.positions - batch.state.positions.mean(0)
        return torch.linalg.cross(centred, batch.state.masses * batch.state.velocities).sum(0)

    start = angular()
    run(batch, 500)
    assert float(start.norm()) > 0.1
    torch.testing.assert_close(angular(), start, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("thermostat", ["langevin", "csvr"])
def test_a_slab_keeps_its_vacuum_and_stays_in_the_middle(lennard_jones: Any, thermostat: str) -> None:
    slab = fcc111("Ar", (2, 2, 4), a=5.3, vacuum=8.0)
    slab.pbc = (True, True, False)
    batch = started(lennard_jones(cutoff=8.5), [Walker(0, slab, 20.0)], timestep_fs=10.0, steps=250, thermostat=thermostat)
    run(batch, 250)
    heights = batch.structures()[0].positions[:, 2]
    assert np.ptp(heights) == pytest.approx(np.ptp(slab.positions[:, 2]), abs=1.5)
    assert heights.mean() == pytest.approx(slab.positions[:, 2].mean(), abs=1.5)
