"""Molecular dynamics of many walkers at once, driven by a committee that watches itself.

Walkers of different cells, sizes, temperatures and pressures share one committee evaluation per step. Each has its own random
numbers, neighbour list and watchdog: leaving out or stopping one changes nothing for the others. Positions and velocities
are in double precision whatever the model's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float
from torch import Tensor

from al_leignn.config import ExploreConfig
from al_leignn.core import Deviation, Frame, Origin
from al_leignn.errors import ConfigError, StructureError
from al_leignn.explore.driver import Driver, Potential, Sight
from al_leignn.explore.integrators import State, draw_velocities, npt_step, nve_step, nvt_step
from al_leignn.explore.watchdog import Limits, StopReason, Vitals, stop_reasons
from al_leignn.units import FS, GPA


@dataclass(frozen=True)
class Walker:
    """One MD replica: where it starts, and its target temperature (K) and pressure (GPa, npt only).

    Velocities are drawn from the temperature, unless `atoms` has momenta.
    """

    index: int
    atoms: Atoms
    temperature: float
    pressure: float = 0.0


@dataclass(frozen=True)
class Sample:
    """A frame on a trajectory, seen by all members."""

    frame: Frame
    deviation: Deviation
    energy: float
    """Potential energy of what drives, eV."""
    temperature: float
    """Kinetic temperature, K."""


@dataclass(frozen=True)
class WalkerReport:
    """How a walker fared."""

    index: int
    temperature: float
    """Target, K."""
    steps_done: int
    stop_reason: str
    """A `StopReason`; empty if it reached its end."""
    mean_temperature: float
    """Kinetic temperature averaged over its steps, K."""
    energy_drift: float | None
    """Change of the conserved quantity (total energy less the heat from the thermostat), eV/atom/ps; none for npt."""


@dataclass(frozen=True)
class Exploration:
    samples: list[Sample]
    """By walker, then by step."""
    walkers: list[WalkerReport]
    """In the order in which walkers were given."""


def explore(
    committee: Potential,
    walkers: Sequence[Walker],
    config: ExploreConfig,
    *,
    iteration: int,
    trust_hi: float,
    seed: np.random.SeedSequence,
    progress: Callable[[int, int], None] | None = None,
) -> Exploration:
    """Run walkers until each has done its steps or was stopped.

    Every `config.stride` steps all members look at every walker, and the frame is kept. So is the frame at which a walker is
    stopped, if its forces are finite.

    Parameters
    ----------
    iteration
        With `driver = "member"`, member `iteration % K` drives.
    trust_hi
        Model deviation above which a walker is stopped, eV/Å; infinite for none.
    seed
        Walker w draws its random numbers from `seed` with w's index appended to the spawn key.
    progress
        Called after every step with walker-steps done (those a stopped walker leaves out count as done) and in all.

    Raises
    ------
    ConfigError
        A target that is not physical; in nve or npt also a potential whose forces are not a gradient, or that is not
        size-consistent.
    StructureError
        An element the potential does not know, or npt without a fully periodic cell.
    """
    samples: list[Sample] = []
    reports = _run(committee, walkers, _Settings(config, iteration, Limits(trust_hi=trust_hi)), seed, samples.append, progress)
    samples.sort(key=lambda s: (s.frame.origin.walker, s.frame.origin.step))
    return Exploration(samples, reports)


def run_md(
    committee: Potential,
    walker: Walker,
    config: ExploreConfig,
    *,
    trust_hi: float = np.inf,
    seed: np.random.SeedSequence,
    on_sample: Callable[[Sample], None],
    progress: Callable[[int, int], None] | None = None,
) -> WalkerReport:
    """Run one walker for production, handing over each sample as it comes and keeping none.

    With `config.driver = "member"`, the first member drives.

    Raises
    ------
    ConfigError, StructureError
        As `explore`.
    """
    settings = _Settings(config, 0, Limits(trust_hi=trust_hi))
    return _run(committee, [walker], settings, seed, on_sample, progress)[0]


@dataclass(frozen=True)
class _Settings:
    config: ExploreConfig
    iteration: int
    limits: Limits


def _run(
    potential: Potential,
    walkers: Sequence[Walker],
    settings: _Settings,
    seed: np.random.SeedSequence,
    on_sample: Callable[[Sample], None],
    progress: Callable[[int, int], None] | None,
) -> list[WalkerReport]:
    if not walkers:
        return []
    steps, stride = settings.config.steps, settings.config.stride
    reports: dict[int, WalkerReport] = {}
    batch = _Batch.start(potential, walkers, settings, seed)
    for step in range(steps + 1):
        sampling = step > 0 and step % stride == 0
        if step > 0:
            batch.step(everyone=sampling)
        reasons = batch.stop_reasons(moved=step > 0)
        if sampling:
            batch.sample(step, on_sample)
        stopped = [w for w, reason in enumerate(reasons) if reason]
        if stopped:
            lost = batch.select(stopped)
            if not sampling:
                lost.evaluate(everyone=True)
                lost.sample(step, on_sample)
            reports |= lost.reports(step, [reasons[w] for w in stopped])
        running = [w for w, reason in enumerate(reasons) if not reason]
        if progress and step > 0:
            progress(len(running) * step + (len(walkers) - len(running)) * steps, len(walkers) * steps)
        if not running:
            break
        if stopped:
            batch = batch.select(running)
    else:
        reports |= batch.reports(steps, [StopReason.NONE] * len(batch.walkers))
    return [reports[walker.index] for walker in walkers]


def _check(potential: Potential, walkers: Sequence[Walker], config: ExploreConfig) -> None:
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
        if not (np.isfinite(walker.temperature) and walker.temperature > 0):
            raise ConfigError(f"a walker cannot run at {walker.temperature:g} K", where=where, fix="give a positive temperature")
        if not np.isfinite(walker.pressure):
            raise ConfigError(f"a walker cannot run at {walker.pressure:g} GPa", where=where, fix="give a finite pressure")
        if config.ensemble == "npt" and not walker.atoms.pbc.all():
            raise StructureError(
                "npt needs a structure that is periodic in three directions", where=where, fix='use ensemble = "nvt"'
            )


@dataclass
class _Batch:
    """Walkers that run together."""

    settings: _Settings
    walkers: list[Walker]
    state: State
    driver: Driver
    sight: Sight
    """Of the last evaluation."""
    bonded: Bool[Tensor, " atoms"]
    """Atoms that had neighbours at the start."""
    start_volume: Float[Tensor, " walkers"]
    start_energy: Float[Tensor, " walkers"]
    """Potential and kinetic, eV."""
    temperature_sum: Float[Tensor, " walkers"]
    """Over all steps, K."""

    @classmethod
    def start(
        cls, potential: Potential, walkers: Sequence[Walker], settings: _Settings, seed: np.random.SeedSequence
    ) -> "_Batch":
        """Draw velocities and evaluate the first forces."""
        config = settings.config
        _check(potential, walkers, config)
        driver = Driver.of(
            potential,
            [walker.atoms for walker in walkers],
            member=settings.iteration % len(potential) if config.driver == "member" else None,
            stress=config.ensemble == "npt",
            contact=settings.limits.contact,
        )
        state = _initial_state(walkers, config.ensemble, driver.neighbours.cells, seed)
        sight = driver.evaluate(state, everyone=True)
        return cls(
            settings=settings,
            walkers=list(walkers),
            state=state,
            driver=driver,
            sight=sight,
            bonded=~sight.alone,
            start_volume=state.volume(),
            start_energy=state.energy + state.kinetic(),
            temperature_sum=torch.zeros_like(state.dof),
        )

    def select(self, keep: Sequence[int]) -> "_Batch":
        """A copy of some of the walkers, on their own from now on."""
        index = torch.as_tensor(keep, device=self.state.walker.device)
        atoms = torch.isin(self.state.walker, index)
        return _Batch(
            settings=self.settings,
            walkers=[self.walkers[w] for w in keep],
            state=self.state.select(keep),
            driver=self.driver.select(keep, atoms),
            sight=self.sight.select(keep, atoms),
            bonded=self.bonded[atoms],
            start_volume=self.start_volume[index],
            start_energy=self.start_energy[index],
            temperature_sum=self.temperature_sum[index],
        )

    def evaluate(self, *, everyone: bool) -> None:
        """Forces at the present positions, by all members if `everyone`."""
        self.sight = self.driver.evaluate(self.state, everyone=everyone)

    def step(self, *, everyone: bool) -> None:
        """One time step; forces by all members if `everyone`."""
        config = self.settings.config
        dt = config.timestep_fs * FS
        friction = config.friction_per_ps / (1000.0 * FS)
        forces = partial(self.evaluate, everyone=everyone)
        match config.ensemble:
            case "nve":
                nve_step(self.state, forces, dt=dt)
            case "nvt":
                nvt_step(self.state, forces, dt=dt, friction=friction)
            case "npt":
                npt_step(self.state, forces, dt=dt, friction=friction)
        self.temperature_sum += self.state.temperature()

    def stop_reasons(self, *, moved: bool) -> list[StopReason]:
        """Why each walker must stop now; disagreement on its start does not count, or it would never find a new frame."""
        state, settings = self.state, self.settings
        per_walker = torch.zeros_like(state.dof)
        force = per_walker.index_add(0, state.walker, state.forces.abs().sum(1))
        lost = per_walker.index_add(0, state.walker, (self.bonded & self.sight.alone).double())
        volume = state.volume() / self.start_volume if settings.config.ensemble == "npt" else torch.ones_like(per_walker)
        columns = [state.energy + force, self.sight.contact, state.temperature(), volume, lost, state.targets, state.dof]
        push, contact, temperature, volumes, alone, targets, dof = torch.stack(columns).cpu().numpy()
        seen = self.sight.deviations if moved else None
        deviations = np.array([d.max for d in seen]) if seen else np.zeros(len(self.walkers))
        vitals = Vitals(
            finite=np.isfinite(push) & np.isfinite(deviations),
            contact=contact,
            temperature=temperature,
            volume=volumes,
            evaporated=alone > 0,
            deviation=deviations,
        )
        return stop_reasons(vitals, settings.limits, settings.limits.hottest(targets, dof))

    def sample(self, step: int, on_sample: Callable[[Sample], None]) -> None:
        """Hand over the present frames; all members must have been asked. Frames that a member cannot judge are left out."""
        positions = self.state.positions.cpu().numpy()
        temperatures = self.state.temperature().tolist()
        energies = self.state.energy.tolist()
        ends = np.cumsum(self.state.counts)
        for w, (walker, found) in enumerate(zip(self.walkers, self.sight.deviations or [], strict=True)):
            if not np.isfinite(found.per_atom).all():
                continue
            atoms = walker.atoms.copy()
            if self.settings.config.ensemble == "npt":
                atoms.set_cell(self.state.cells[w].cpu().numpy())
            atoms.positions = positions[ends[w] - self.state.counts[w] : ends[w]]
            origin = Origin("md", self.settings.iteration, walker.index, step, walker.temperature)
            on_sample(Sample(Frame.of(atoms, origin), found, energies[w], temperatures[w]))

    def reports(self, steps: int, reasons: Sequence[StopReason]) -> dict[int, WalkerReport]:
        """How walkers fared that end now, after `steps` steps, by index."""
        state, config = self.state, self.settings.config
        gained = (state.energy + state.kinetic() - state.heat - self.start_energy).tolist()
        mean = (self.temperature_sum / steps if steps else state.temperature()).tolist()
        picoseconds = steps * config.timestep_fs / 1000.0
        reports = {}
        for w, (walker, reason) in enumerate(zip(self.walkers, reasons, strict=True)):
            conserved = config.ensemble != "npt" and steps > 0 and bool(np.isfinite(gained[w]))
            drift = gained[w] / (state.counts[w] * picoseconds) if conserved else None
            reports[walker.index] = WalkerReport(walker.index, walker.temperature, steps, reason.value, mean[w], drift)
        return reports


def _initial_state(
    walkers: Sequence[Walker], ensemble: str, cells: Float[Tensor, "walkers 3 3"], seed: np.random.SeedSequence
) -> State:
    """Atoms where they are, with velocities of their own or of the target temperature, and no forces yet."""
    device = cells.device

    def tensor(values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float64), device=device)

    structures = [walker.atoms for walker in walkers]
    counts = [len(atoms) for atoms in structures]
    positions = tensor(np.concatenate([atoms.positions for atoms in structures]))
    still = ensemble == "nve"
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
        targets=tensor([walker.temperature for walker in walkers]),
        pressures=tensor([walker.pressure * GPA for walker in walkers]),
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
