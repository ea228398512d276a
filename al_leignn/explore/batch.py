"""Walkers that run together: where they start, their time steps, why they stop, what is seen of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from al_leignn.config import ExploreConfig
from al_leignn.core import Deviation, Frame, Origin
from al_leignn.deviation import relative
from al_leignn.errors import ConfigError, StructureError
from al_leignn.explore import integrators
from al_leignn.explore.bias import Bias
from al_leignn.explore.driver import Driver, Potential, Sight
from al_leignn.explore.integrators import State, draw_velocities, npt_step, nve_step, nvt_step
from al_leignn.explore.ramp import Ramp, at, points
from al_leignn.explore.watchdog import Limits, StopReason, Vitals, stop_reasons
from al_leignn.shapes import Bool, Float
from al_leignn.units import FS, GPA

_THERMOSTATS = {"langevin": integrators.langevin, "csvr": integrators.rescale_velocities}
_COUPLINGS = {"isotropic": integrators.isotropic, "anisotropic": integrators.anisotropic, "full": integrators.full}


@dataclass(frozen=True)
class Walker:
    """One MD replica: where it starts, and its target temperature (K) and pressure (GPa, npt only).

    Several values of a target are passed through at equal times, linearly in between. Velocities are drawn from the first
    temperature, unless `atoms` has momenta.
    """

    index: int
    atoms: Atoms
    temperature: Ramp
    pressure: Ramp = 0.0

    @cached_property
    def hottest(self) -> float:
        """Highest target, K."""
        return max(points(self.temperature))

    @cached_property
    def on_ramp(self) -> bool:
        """Whether a target changes."""
        return len(points(self.temperature)) + len(points(self.pressure)) > 2


@dataclass(frozen=True)
class Sample:
    """A frame on a trajectory, seen by all members."""

    frame: Frame
    deviation: Deviation
    energy: float
    """Potential energy of what drives, without bias, eV."""
    temperature: float
    """Kinetic temperature, K."""


@dataclass(frozen=True)
class WalkerReport:
    """How a walker fared."""

    index: int
    temperature: float
    """Highest target, K."""
    steps_done: int
    stop_reason: str
    """A `StopReason`; empty if it reached its end."""
    mean_temperature: float
    """Kinetic temperature averaged over its steps, K."""
    energy_drift: float | None
    """Change of the conserved quantity (total energy less the heat from the thermostat), eV/atom/ps; none for npt."""


@dataclass(frozen=True)
class Settings:
    """What all walkers of a batch share."""

    config: ExploreConfig
    iteration: int
    limits: Limits


def check_walkers(potential: Potential, walkers: Sequence[Walker], config: ExploreConfig) -> None:
    """Refuse what cannot run.

    Raises
    ------
    ConfigError
        A target that is not physical; in nve or npt also a potential whose forces are not a gradient, or that is not
        size-consistent.
    StructureError
        Constant pressure without a fully periodic cell.
    """
    if not potential.conservative and config.ensemble != "nvt":
        raise ConfigError(
            f"forces predicted directly are not a gradient: they heat an {config.ensemble} run without end",
            where="model.direct_forces",
            fix='set it to false, or explore with ensemble = "nvt", whose thermostat takes the heat away',
        )
    if not potential.size_consistent and config.ensemble != "nvt":
        raise ConfigError(
            f"a virtual node ties every atom to the mean of all, so what an {config.ensemble} run measures depends on its size",
            where="model.preset",
            fix='train with preset = "local", or explore with ensemble = "nvt"',
        )
    for walker in walkers:
        where = f"walker {walker.index} ({walker.atoms.symbols})"
        for t in points(walker.temperature):
            if not (np.isfinite(t) and t > 0):
                raise ConfigError(f"a walker cannot run at {t:g} K", where=where, fix="give a positive temperature")
        for p in points(walker.pressure):
            if not np.isfinite(p):
                raise ConfigError(f"a walker cannot run at {p:g} GPa", where=where, fix="give a finite pressure")
        if config.ensemble == "npt" and not walker.atoms.pbc.all():
            raise StructureError(
                "npt needs a structure that is periodic in three directions", where=where, fix='use ensemble = "nvt"'
            )


@dataclass
class Batch:
    """Walkers that run together."""

    settings: Settings
    walkers: list[Walker]
    state: State
    driver: Driver
    sight: Sight
    """Of the last evaluation."""
    temperature: Float[Tensor, " walkers"]
    """Kinetic, now, K."""
    bonded: Bool[Tensor, " atoms"]
    """Atoms that had neighbours at the start."""
    start_volume: Float[Tensor, " walkers"]
    start_energy: Float[Tensor, " walkers"]
    """Potential and kinetic, eV."""
    temperature_sum: Float[Tensor, " walkers"]
    """Over all steps, K."""

    @classmethod
    def start(cls, potential: Potential, walkers: Sequence[Walker], settings: Settings, seed: np.random.SeedSequence) -> "Batch":
        """Draw velocities and evaluate the first forces; errors as `check_walkers` and `Neighbours.of`."""
        check_walkers(potential, walkers, settings.config)
        driver = new_driver(potential, [walker.atoms for walker in walkers], settings)
        state = initial_state(walkers, settings.config, driver.neighbours.cells, seed)
        sight = driver.evaluate(state, everyone=True)
        return cls(
            settings=settings,
            walkers=list(walkers),
            state=state,
            driver=driver,
            sight=sight,
            temperature=state.temperature(),
            bonded=~sight.alone,
            start_volume=state.volume(),
            start_energy=state.energy + state.kinetic(),
            temperature_sum=torch.zeros_like(state.dof),
        )

    def select(self, keep: Sequence[int]) -> "Batch":
        """A copy of some of the walkers, on their own from now on."""
        index = torch.as_tensor(keep, device=self.state.walker.device)
        atoms = torch.isin(self.state.walker, index)
        return Batch(
            settings=self.settings,
            walkers=[self.walkers[w] for w in keep],
            state=self.state.select(keep),
            driver=self.driver.select(keep, atoms),
            sight=self.sight.select(keep, atoms),
            temperature=self.temperature[index],
            bonded=self.bonded[atoms],
            start_volume=self.start_volume[index],
            start_energy=self.start_energy[index],
            temperature_sum=self.temperature_sum[index],
        )

    def evaluate(self, *, everyone: bool) -> None:
        """Forces at the present positions, by all members if `everyone`."""
        self.sight = self.driver.evaluate(self.state, everyone=everyone)

    def step(self, step: int, *, everyone: bool) -> None:
        """The time step that ends at number `step`; forces by all members if `everyone`."""
        self._aim(step / self.settings.config.steps)
        time_step(self.state, partial(self.evaluate, everyone=everyone), self.settings.config)
        self.temperature = self.state.temperature()
        self.temperature_sum += self.temperature

    def _aim(self, share: float) -> None:
        """Move the targets of walkers on ramps to where they are after a share of all steps."""
        for w, walker in enumerate(self.walkers):
            if walker.on_ramp:
                self.state.targets[w] = at(walker.temperature, share)
                self.state.pressures[w] = at(walker.pressure, share) * GPA

    def stop_reasons(self, *, moved: bool) -> list[StopReason]:
        """Why each walker must stop now; disagreement on its start does not count, or it would never find a new frame."""
        state, settings = self.state, self.settings
        force = state.per_walker(state.forces.abs().sum(1))
        lost = state.per_walker((self.bonded & self.sight.alone).double())
        volume = state.volume() / self.start_volume if settings.config.ensemble == "npt" else torch.ones_like(force)
        columns = [state.energy + force, self.sight.contact, self.temperature, volume, lost]
        push, contact, temperature, volumes, alone = torch.stack(columns).cpu().numpy()
        seen = self.sight.deviations if moved else None
        scale = settings.limits.force_scale
        judged = [relative(d.per_atom, d.mean_force, scale).max() for d in seen] if seen else [0.0] * len(self.walkers)
        deviations = np.array(judged)
        vitals = Vitals(
            finite=np.isfinite(push) & np.isfinite(deviations),
            contact=contact,
            temperature=temperature,
            volume=volumes,
            evaporated=alone > 0,
            deviation=deviations,
        )
        return stop_reasons(vitals, settings.limits, self._hottest)

    @cached_property
    def _hottest(self) -> Float[np.ndarray, " walkers"]:
        """Kinetic temperature at which each walker is stopped, K."""
        # A quench cools faster than its atoms: what counts is the hottest target.
        targets = np.array([walker.hottest for walker in self.walkers])
        return self.settings.limits.hottest(targets, self.state.dof.cpu().numpy())

    def sample(self, step: int, on_sample: Callable[[Sample], None]) -> None:
        """Hand over the present frames; all members must have been asked. Frames that a member cannot judge are left out."""
        temperatures = self.temperature.tolist()
        energies = (self.state.energy - self.sight.bias).tolist()
        targets = self.state.targets.tolist()
        structures = self.structures()
        for w, found in enumerate(self.sight.deviations or []):
            if np.isfinite(found.per_atom).all():
                origin = Origin("md", self.settings.iteration, self.walkers[w].index, step, targets[w])
                on_sample(Sample(Frame.of(structures[w], origin), found, energies[w], temperatures[w]))

    def structures(self) -> list[Atoms]:
        """The walkers as they are now."""
        return structures_at(self.walkers, self.settings.config, self.state.positions, self.state.cells)

    def reports(self, steps: int, reasons: Sequence[StopReason]) -> dict[int, WalkerReport]:
        """How walkers fared that end now, after `steps` steps, by index."""
        state, config = self.state, self.settings.config
        gained = (state.energy + state.kinetic() - state.heat - self.start_energy).tolist()
        mean = (self.temperature_sum / steps if steps else self.temperature).tolist()
        picoseconds = steps * config.timestep_fs / 1000.0
        reports = {}
        for w, (walker, reason) in enumerate(zip(self.walkers, reasons, strict=True)):
            conserved = config.ensemble != "npt" and steps > 0 and bool(np.isfinite(gained[w]))
            drift = gained[w] / (state.counts[w] * picoseconds) if conserved else None
            reports[walker.index] = WalkerReport(walker.index, walker.hottest, steps, reason.value, mean[w], drift)
        return reports


def time_step(state: State, forces: integrators.Forces, config: ExploreConfig) -> None:
    """One step of the configured ensemble."""
    dt = config.timestep_fs * FS
    thermostat = partial(_THERMOSTATS[config.thermostat], friction=config.friction_per_ps / (1000.0 * FS))
    match config.ensemble:
        case "nve":
            nve_step(state, forces, dt=dt)
        case "nvt":
            nvt_step(state, forces, dt=dt, thermostat=thermostat)
        case "npt":
            npt_step(state, forces, dt=dt, thermostat=thermostat, coupling=_COUPLINGS[config.cell])


def structures_at(
    walkers: Sequence[Walker],
    config: ExploreConfig,
    positions: Float[Tensor, "atoms 3"],
    cells: Float[Tensor, "walkers 3 3"],
) -> list[Atoms]:
    """Walkers with other positions (walker by walker, taken as they are) and, where it may change, another cell."""
    places, shapes = positions.cpu().numpy(), cells.cpu().numpy()
    first, found = 0, []
    for walker, shape in zip(walkers, shapes, strict=True):
        atoms = walker.atoms.copy()
        if config.ensemble == "npt":
            atoms.set_cell(shape)
        atoms.positions = places[first : first + len(atoms)]
        first += len(atoms)
        found.append(atoms)
    return found


def new_driver(
    potential: Potential, structures: Sequence[Atoms], settings: Settings, homes: Sequence[np.ndarray] | None = None
) -> Driver:
    """What pushes walkers that are at `structures` now; `homes` as in `Neighbours.of`."""
    config = settings.config
    return Driver.of(
        potential,
        structures,
        member=settings.iteration % len(potential) if config.driver == "member" else None,
        stress=config.ensemble == "npt",
        contact=settings.limits.contact,
        bias=Bias(config.bias_ev, config.bias_width_ev) if config.bias_ev else None,
        homes=homes,
    )


def initial_state(
    walkers: Sequence[Walker], config: ExploreConfig, cells: Float[Tensor, "walkers 3 3"], seed: np.random.SeedSequence
) -> State:
    """Atoms where they are, with velocities of their own or of the first temperature, and no forces yet."""
    device = cells.device

    def tensor(values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float64), device=device)

    structures = [walker.atoms for walker in walkers]
    counts = [len(atoms) for atoms in structures]
    positions = tensor(np.concatenate([atoms.positions for atoms in structures]))
    still = keeps_momentum(config)
    state = State(
        streams=[
            np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, w.index))) for w in walkers
        ],
        counts=counts,
        walker=torch.repeat_interleave(torch.tensor(counts, device=device)),
        masses=tensor(np.concatenate([atoms.get_masses() for atoms in structures])).unsqueeze(1),
        positions=positions,
        velocities=torch.zeros_like(positions),
        forces=torch.zeros_like(positions),
        cells=cells.clone(),
        energy=tensor(np.zeros(len(walkers))),
        stress=torch.zeros_like(cells),
        targets=tensor([at(walker.temperature, 0.0) for walker in walkers]),
        pressures=tensor([at(walker.pressure, 0.0) * GPA for walker in walkers]),
        dof=tensor([3 * n - 3 if still and n > 1 else 3 * n for n in counts]),
        heat=tensor(np.zeros(len(walkers))),
    )
    state.velocities = draw_velocities(state)
    for w, atoms in enumerate(structures):
        mine = state.walker == w
        if atoms.has("momenta"):
            state.velocities[mine] = tensor(atoms.get_velocities())
        if still and counts[w] > 1:
            mass = state.masses[mine]
            state.velocities[mine] -= (mass * state.velocities[mine]).sum(0) / mass.sum()
    return state


def keeps_momentum(config: ExploreConfig) -> bool:
    """Whether the total momentum of a walker stays zero, so that three degrees of freedom carry no kinetic energy."""
    return config.ensemble == "nve" or config.thermostat == "csvr"
