"""Equations of motion for many walkers at once: their state, and one function per ensemble that makes a time step.

A step is composed of exact flows: kick (velocities by forces), drift (positions by velocities), thermostat and cell.
Everything is in double precision and ASE's internal units (eV, Å, amu). Steps change the state in place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from al_leignn.units import FS, GPA, KB

_CELL_RATE = 1e-4 / (GPA * FS)
"""Compressibility over relaxation time of the cell: 0.05/GPa and 500 fs, say. Only the ratio enters, and it decides how fast
volumes are sampled, not which: with a bulk modulus B a volume is forgotten within 1/(B x rate), 100 fs at 100 GPa."""


@dataclass
class State:
    """Where walkers are. Arrays of atoms run through all walkers in a row."""

    streams: list[np.random.Generator]
    """Random numbers of each walker."""
    counts: list[int]
    """Atoms of each walker."""
    walker: Int[Tensor, " atoms"]
    masses: Float[Tensor, "atoms 1"]
    positions: Float[Tensor, "atoms 3"]
    velocities: Float[Tensor, "atoms 3"]
    forces: Float[Tensor, "atoms 3"]
    cells: Float[Tensor, "walkers 3 3"]
    energy: Float[Tensor, " walkers"]
    """Potential energy, eV."""
    stress: Float[Tensor, "walkers 3 3"]
    """Of the potential, positive under tension, eV/Å^3; kept up to date for constant pressure only."""
    targets: Float[Tensor, " walkers"]
    """Temperature to hold, K."""
    pressures: Float[Tensor, " walkers"]
    """Pressure to hold, eV/Å^3."""
    dof: Float[Tensor, " walkers"]
    """Degrees of freedom that carry kinetic energy."""
    heat: Float[Tensor, " walkers"]
    """Energy that the thermostat has put in so far, eV."""

    def select(self, keep: Sequence[int]) -> "State":
        """A copy of some of the walkers, given in ascending order."""
        index = torch.as_tensor(keep, dtype=torch.int64, device=self.walker.device)
        atoms = torch.isin(self.walker, index)
        return State(
            streams=[self.streams[w] for w in keep],
            counts=[self.counts[w] for w in keep],
            walker=torch.searchsorted(index, self.walker[atoms]),
            masses=self.masses[atoms],
            positions=self.positions[atoms],
            velocities=self.velocities[atoms],
            forces=self.forces[atoms],
            cells=self.cells[index],
            energy=self.energy[index],
            stress=self.stress[index],
            targets=self.targets[index],
            pressures=self.pressures[index],
            dof=self.dof[index],
            heat=self.heat[index],
        )

    def kinetic(self) -> Float[Tensor, " walkers"]:
        """Kinetic energy, eV."""
        per_atom = 0.5 * self.masses.squeeze(1) * self.velocities.square().sum(1)
        return torch.zeros_like(self.dof).index_add_(0, self.walker, per_atom)

    def temperature(self) -> Float[Tensor, " walkers"]:
        """Kinetic temperature, K."""
        return 2.0 * self.kinetic() / (self.dof * KB)

    def volume(self) -> Float[Tensor, " walkers"]:
        """Å^3; zero without a three-dimensional cell."""
        volume: Float[Tensor, " walkers"] = torch.linalg.det(self.cells).abs()
        return volume


Forces = Callable[[], None]
"""Brings forces and energy (for constant pressure also stress) of the state up to date with its positions."""


def nve_step(state: State, forces: Forces, *, dt: float) -> None:
    """One step of velocity Verlet: constant energy, time-reversible and symplectic."""
    _kick(state, dt / 2)
    _drift(state, dt)
    forces()
    _kick(state, dt / 2)


def nvt_step(state: State, forces: Forces, *, dt: float, friction: float) -> None:
    """One step of Langevin dynamics, BAOAB splitting: kick, drift, thermostat, drift, kick.

    Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34: exact configurational averages in a harmonic well at any
    stable step.

    Parameters
    ----------
    dt
        Internal time units.
    friction
        Inverse internal time units.
    """
    _kick(state, dt / 2)
    _drift(state, dt / 2)
    _thermostat(state, dt, friction)
    _drift(state, dt / 2)
    forces()
    _kick(state, dt / 2)


def npt_step(state: State, forces: Forces, *, dt: float, friction: float) -> None:
    """One step of `nvt_step` with an isotropic cell step after the first kick."""
    _kick(state, dt / 2)
    _rescale_cell(state, dt)
    _drift(state, dt / 2)
    _thermostat(state, dt, friction)
    _drift(state, dt / 2)
    forces()
    _kick(state, dt / 2)


def draw_velocities(state: State) -> Float[Tensor, "atoms 3"]:
    """Velocities from the Maxwell-Boltzmann distribution of each walker's target temperature."""
    return _thermal(state) * _noise(state)


def _kick(state: State, dt: float) -> None:
    state.velocities += dt * state.forces / state.masses


def _drift(state: State, dt: float) -> None:
    state.positions += dt * state.velocities


def _thermostat(state: State, dt: float, friction: float) -> None:
    """Exact solution of dv = -friction v dt + noise for the time `dt`."""
    before = state.kinetic()
    keep = np.exp(-friction * dt)
    state.velocities *= keep
    state.velocities += np.sqrt(1.0 - keep**2) * _thermal(state) * _noise(state)
    state.heat += state.kinetic() - before


def _rescale_cell(state: State, dt: float) -> None:
    """Stochastic cell rescaling (Bernetti and Bussi, J. Chem. Phys. 153, 114107, 2020): one Euler step for sqrt(V).

    d sqrt(V) = -(r/2) sqrt(V) (P0 - P - kT/2V) dt + sqrt(kT r/2) dW, with the rate r of `_CELL_RATE` and the pressure
    P = 2K/3V - tr(stress)/3. Positions follow the cell and velocities go against it, which leaves the isothermal-isobaric
    distribution of positions, velocities and volume unchanged but for the error of the step, which is of order B r dt for a bulk
    modulus B: a per cent of the fluctuations at 100 GPa and 1 fs.
    """
    kt = KB * state.targets
    volume = state.volume()
    pressure = 2.0 * state.kinetic() / (3.0 * volume) - state.stress.diagonal(dim1=1, dim2=2).mean(1)
    root = volume.sqrt()
    noise = torch.tensor([stream.standard_normal() for stream in state.streams], dtype=root.dtype, device=root.device)
    new = root - 0.5 * _CELL_RATE * dt * root * (state.pressures - pressure - 0.5 * kt / volume)
    new += (0.5 * _CELL_RATE * dt * kt).sqrt() * noise
    # Hundreds of GPa away from the target: leave it to the watchdog, not to a cell turned inside out.
    new = new.clamp(0.95 * root, 1.05 * root)
    scale = (new / root).pow(2.0 / 3.0)
    state.cells *= scale.view(-1, 1, 1)
    state.positions *= scale[state.walker].unsqueeze(1)
    state.velocities /= scale[state.walker].unsqueeze(1)


def _thermal(state: State) -> Float[Tensor, "atoms 1"]:
    """Standard deviation of each velocity component at the target temperature."""
    return (KB * state.targets[state.walker].unsqueeze(1) / state.masses).sqrt()


def _noise(state: State) -> Float[Tensor, "atoms 3"]:
    """Standard normal numbers, each walker's from its own stream."""
    numbers = np.empty((len(state.walker), 3))
    first = 0
    for stream, count in zip(state.streams, state.counts, strict=True):
        stream.standard_normal(out=numbers[first : first + count])
        first += count
    return torch.from_numpy(numbers).to(state.walker.device)
