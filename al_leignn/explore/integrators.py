"""Equations of motion for many walkers at once: their state, and one function per ensemble that makes a time step.

A step is composed of kicks (velocities by forces), drifts (positions by velocities), a thermostat and a deformation of the cell.
Everything is in double precision and ASE's internal units (eV, Å, amu). Steps change the state in place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from al_leignn.shapes import Float, Int
from al_leignn.units import FS, GPA, KB

_CELL_RATE = 1e-4 / (GPA * FS)
"""Compressibility over relaxation time of the cell: 0.05/GPa and 500 fs, say. Only the ratio enters, and it decides how fast
cells are sampled, not which: with a bulk modulus B a volume is forgotten within 1/(B x rate), 100 fs at 100 GPa."""

_LARGEST_STRAIN = 0.1
"""In one step. Only a pressure hundreds of GPa from the target asks for more: that is left to the watchdog."""


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
        return self.per_walker(torch.linalg.vecdot(self.masses * self.velocities, self.velocities)) / 2.0

    def temperature(self) -> Float[Tensor, " walkers"]:
        """Kinetic temperature, K."""
        return 2.0 * self.kinetic() / (self.dof * KB)

    def per_walker(self, of_atoms: Float[Tensor, " atoms"]) -> Float[Tensor, " walkers"]:
        """Sums over the atoms of each walker."""
        return torch.zeros_like(self.dof).index_add_(0, self.walker, of_atoms)

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


Thermostat = Callable[[State, float], None]
"""Brings the velocities of the state to its target temperatures for a time; adds what it puts in to `state.heat`."""


def nvt_step(state: State, forces: Forces, *, dt: float, thermostat: Thermostat) -> None:
    """One step at constant temperature: kick, drift, thermostat, drift, kick.

    With `langevin` this is the BAOAB splitting (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34): exact
    configurational averages in a harmonic well at any stable step.

    Parameters
    ----------
    dt
        Internal time units.
    """
    _kick(state, dt / 2)
    _drift(state, dt / 2)
    thermostat(state, dt)
    _drift(state, dt / 2)
    forces()
    _kick(state, dt / 2)


def npt_step(state: State, forces: Forces, *, dt: float, thermostat: Thermostat, coupling: "Coupling") -> None:
    """One step of `nvt_step` in which the cell deforms after the first kick."""
    _kick(state, dt / 2)
    _deform(state, dt, coupling)
    _drift(state, dt / 2)
    thermostat(state, dt)
    _drift(state, dt / 2)
    forces()
    _kick(state, dt / 2)


def langevin(state: State, dt: float, *, friction: float) -> None:
    """Exact solution of dv = -friction v dt + noise for the time `dt`; `friction` in inverse internal time units."""
    before = state.kinetic()
    keep = np.exp(-friction * dt)
    state.velocities *= keep
    state.velocities.addcmul_(_thermal(state), _noise(state), value=np.sqrt(1.0 - keep**2))
    state.heat += state.kinetic() - before


def rescale_velocities(state: State, dt: float, *, friction: float) -> None:
    """Stochastic velocity rescaling (Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101, 2007, eq. A7).

    One factor for all velocities of a walker: momentum is kept, and the motion is hardly disturbed. The kinetic energy is
    renewed as fast as by `langevin` with the same `friction`, at the rate 2 x friction.
    """
    keep = np.exp(-2.0 * friction * dt)
    normal, rest = np.empty(len(state.streams)), np.empty(len(state.streams))
    for w, (stream, dof) in enumerate(zip(state.streams, state.dof.tolist(), strict=True)):
        normal[w] = stream.standard_normal()
        rest[w] = 2.0 * stream.standard_gamma((dof - 1.0) / 2.0)
    one, others = (torch.from_numpy(x).to(state.dof.device) for x in (normal, rest))
    kinetic = state.kinetic()
    share = (1.0 - keep) * 0.5 * KB * state.targets / kinetic
    factor = keep + share * (one.square() + others) + 2.0 * one * (keep * share).sqrt()
    state.velocities *= factor.sqrt()[state.walker].unsqueeze(1)
    state.heat += (factor - 1.0) * kinetic


def draw_velocities(state: State) -> Float[Tensor, "atoms 3"]:
    """Velocities from the Maxwell-Boltzmann distribution of each walker's target temperature."""
    return _thermal(state) * _noise(state)


def _kick(state: State, dt: float) -> None:
    state.velocities.addcdiv_(state.forces, state.masses, value=dt)


def _drift(state: State, dt: float) -> None:
    state.positions.add_(state.velocities, alpha=dt)


Coupling = Callable[[Float[Tensor, "walkers 3 3"]], Float[Tensor, "walkers 3 3"]]
"""Keeps of a symmetric strain what the cell may follow."""


def isotropic(strain: Float[Tensor, "walkers 3 3"]) -> Float[Tensor, "walkers 3 3"]:
    """Its change of volume only."""
    mean = strain.diagonal(dim1=1, dim2=2).mean(1)
    return mean.view(-1, 1, 1) * torch.eye(3, dtype=strain.dtype, device=strain.device)


def anisotropic(strain: Float[Tensor, "walkers 3 3"]) -> Float[Tensor, "walkers 3 3"]:
    """Its stretches along x, y and z: right angles between cell vectors along them stay."""
    return torch.diag_embed(strain.diagonal(dim1=1, dim2=2))


def full(strain: Float[Tensor, "walkers 3 3"]) -> Float[Tensor, "walkers 3 3"]:
    """All of it."""
    return strain


def _deform(state: State, dt: float, coupling: Coupling) -> None:
    """Stochastic cell rescaling: one Euler step of the strain, applied to the cell as its matrix exponential.

    d(strain) = (r/3) (P - P0) dt + sqrt(2 kT r/3V) dW, with the rate r of `_CELL_RATE`, the pressure tensor
    P = sum(m v v)/V - stress and symmetric noise, both restricted by the coupling. Bernetti and Bussi, J. Chem. Phys. 153,
    114107, 2020, for the volume; Del Tatto, Raiteri and Bussi, Appl. Sci. 12, 1139, 2022, for the cell, here for symmetric
    strains, so the cell does not turn. Positions follow the cell and velocities go against it, which leaves the
    isothermal-isobaric distribution of positions, velocities and cells unchanged but for the error of the step, which is
    of order B r dt for a bulk modulus B: a per cent of the fluctuations at 100 GPa and 1 fs.
    """
    volume = state.volume().view(-1, 1, 1)
    per_atom = (state.masses * state.velocities).unsqueeze(2) * state.velocities.unsqueeze(1)
    kinetic = torch.zeros_like(state.stress).index_add_(0, state.walker, per_atom)
    target = state.pressures.view(-1, 1, 1) * torch.eye(3, dtype=volume.dtype, device=volume.device)
    normal = torch.from_numpy(np.stack([stream.standard_normal((3, 3)) for stream in state.streams])).to(volume.device)
    noise = (normal + normal.transpose(1, 2)) / 2.0
    strain = _CELL_RATE / 3.0 * dt * (kinetic / volume - state.stress - target)
    strain = strain + (2.0 * KB * state.targets.view(-1, 1, 1) * _CELL_RATE * dt / (3.0 * volume)).sqrt() * noise
    strain = coupling(strain)
    size = strain.norm(dim=(1, 2), keepdim=True)
    strain = torch.where(size.isfinite(), strain * (_LARGEST_STRAIN / size).clamp(max=1.0), torch.zeros_like(strain))
    stretch, shrink = _exponential(strain), _exponential(-strain)
    state.cells = state.cells @ stretch
    state.positions = _deformed(state.positions, stretch[state.walker])
    state.velocities = _deformed(state.velocities, shrink[state.walker])


def _exponential(strain: Float[Tensor, "walkers 3 3"]) -> Float[Tensor, "walkers 3 3"]:
    """Matrix exponential by its series, exact to double precision up to `_LARGEST_STRAIN`."""
    one = torch.eye(3, dtype=strain.dtype, device=strain.device)
    total = one.expand_as(strain)
    for n in range(9, 0, -1):
        total = one + strain @ total / n
    return total


def _deformed(vectors: Float[Tensor, "atoms 3"], matrices: Float[Tensor, "atoms 3 3"]) -> Float[Tensor, "atoms 3"]:
    return (vectors.unsqueeze(2) * matrices).sum(1)


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
