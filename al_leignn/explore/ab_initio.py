"""MD whose forces come from a labeller: reference trajectories with every step labelled, written as they come.

The equations of motion are those of exploration. A labeller may go on from what it knows of the step before (a density), within
blocks of `BLOCK` steps: between them the state is saved and the labeller starts afresh. So a run that was killed goes on from
its last block, and its file is the same to the last byte as that of a run that was not.
"""

import io
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from ase import Atoms
from ase.io.extxyz import write_xyz

from al_leignn.config import ExploreConfig
from al_leignn.core import Labels
from al_leignn.errors import DataError
from al_leignn.explore.batch import Walker, initial_state, keeps_momentum, structures_at, time_step
from al_leignn.explore.integrators import State
from al_leignn.model.unfinished import load_state, save_state
from al_leignn.store import Stopwatch

BLOCK = 25
"""Steps between saved states. An SCF that starts afresh takes 1.4 to 1.8 times as long (docs/validation.md): 3 % of all."""

SETTLING_FRICTION = 10.0
"""Of the Langevin thermostat before the trajectory begins, 1/ps: half of the energy in the velocities that are drawn goes into
the potential, and is made up for within 0.1 ps."""

_KIND = "aimd"
_KEPT = ("positions", "velocities", "forces", "energy", "heat")

Label = Callable[[Atoms, bool], Labels]
"""Labels of a structure; the flag asks the labeller to forget the one before."""


@dataclass
class Totals:
    """What a run has come to, its interruptions included."""

    step: int = 0
    """Settling included."""
    temperature_sum: float = 0.0
    """Kinetic, of the steps after settling, K."""
    core_s: float = 0.0
    """Core-seconds, settling included."""


@dataclass(frozen=True)
class AbInitioRun:
    """A trajectory to be made.

    Attributes
    ----------
    config
        One temperature; `steps` after settling, of which every `stride`-th is written, the first included.
    settling
        Steps before time zero, not written.
    level
        Digest of the level of theory, written with every frame.
    fingerprint
        Of all that the trajectory depends on but its length.
    """

    atoms: Atoms
    config: ExploreConfig
    settling: int
    label: Label
    level: str
    seed: int
    out: Path
    fingerprint: str

    @property
    def saved(self) -> Path:
        """The state of the run, beside its trajectory."""
        return self.out.with_name(f"{self.out.name}.restart")

    def go(self, progress: Callable[[int, int], None]) -> Totals:
        """Begin, or go on where it was interrupted or ended after fewer steps.

        Each frame has energy (eV), forces (eV/Å) and, if the labeller gives it, stress (eV/Å^3) as REF_* keys, momenta, the
        kinetic temperature (K), time and time step (fs), and with a thermostat its target, kind and friction (1/ps).

        Raises
        ------
        DataError
            If there is a file of that name that is not the beginning of this trajectory.
        """
        state, totals, labels, position = self._start()
        last = self.settling + self.config.steps
        with self.out.open("ab") as file:
            file.truncate(position)
            if labels is not None:
                self._record(file, state, totals, labels)
            while totals.step < last:
                watch = Stopwatch()
                labels = self._advance(state, totals.step)
                totals.step += 1
                totals.core_s += watch.times()["cpu_s"]
                self._record(file, state, totals, labels)
                if totals.step % BLOCK == 0 or totals.step == last:
                    file.flush()
                    os.fsync(file.fileno())
                    self._save(file.tell(), state, totals)
                progress(totals.step, last)
        return totals

    def _start(self) -> tuple[State, Totals, Labels | None, int]:
        """State, totals, labels of a run that only begins, and where its file ends."""
        walker = Walker(index=0, atoms=self.atoms, temperature=self.config.temperatures[0])
        cells = torch.from_numpy(np.asarray(self.atoms.cell, dtype=np.float64)[None].copy())
        state = initial_state([walker], self.config, cells, np.random.SeedSequence(self.seed))
        read = load_state(self.saved, _KIND, self.fingerprint)
        if read is None and self.out.exists():
            raise DataError(
                "the output file exists, and it is not the beginning of this trajectory",
                where=str(self.out),
                fix="to go on from it, repeat options and settings of the first run (only --ps may differ); else choose another "
                "name with --out, or remove it",
            )
        if read is None or read[0]["totals"]["step"] == 0:
            watch = Stopwatch()
            labels = self.label(self._structure(state), True)
            _push(state, labels)
            totals = Totals(core_s=watch.times()["cpu_s"])
            self._save(0, state, totals)  # from now on a file of that name is ours
            return state, totals, labels, 0
        about, tensors = read
        if not self.out.exists() or self.out.stat().st_size < about["position"]:
            raise DataError(
                "the trajectory is shorter than when its state was saved",
                where=str(self.out),
                fix=f"restore it, or remove {self.saved}",
            )
        for name in _KEPT:
            setattr(state, name, tensors[name])
        state.streams[0].bit_generator.state = about["stream"]
        return state, Totals(**about["totals"]), None, about["position"]

    def _advance(self, state: State, step: int) -> Labels:
        """The time step after number `step`."""
        config = self.config
        if step < self.settling:
            milder = {"ensemble": "nvt", "thermostat": "langevin", "friction_per_ps": SETTLING_FRICTION}
            config = config.model_copy(update=milder)
        found: list[Labels] = []

        def forces() -> None:
            found.append(self.label(self._structure(state), step % BLOCK == 0))
            _push(state, found[-1])

        time_step(state, forces, config)
        if step + 1 == self.settling and keeps_momentum(self.config):
            state.velocities -= (state.masses * state.velocities).sum(0) / state.masses.sum()
        return found[-1]

    def _structure(self, state: State) -> Atoms:
        walker = Walker(index=0, atoms=self.atoms, temperature=self.config.temperatures[0])
        return structures_at([walker], self.config, state.positions, state.cells)[0]

    def _record(self, file: BinaryIO, state: State, totals: Totals, labels: Labels) -> None:
        done = totals.step - self.settling
        if done < 0:
            return
        temperature = float(state.temperature()[0])
        totals.temperature_sum += temperature if done else 0.0
        if done % self.config.stride:
            return
        atoms = self._structure(state)
        atoms.set_velocities(state.velocities.numpy())
        atoms.set_array("REF_forces", labels.forces)
        atoms.info = {
            "REF_energy": labels.energy,
            **({} if labels.stress is None else {"REF_stress": labels.stress}),
            "time_fs": done * self.config.timestep_fs,
            "timestep_fs": self.config.timestep_fs,
            "temperature": temperature,
            "level": f"id:{self.level}",
        }
        if self.config.ensemble != "nve":
            atoms.info |= {
                "target_temperature": self.config.temperatures[0],
                "thermostat": self.config.thermostat,
                "friction_per_ps": self.config.friction_per_ps,
            }
        text = io.StringIO()
        write_xyz(text, [atoms])
        file.write(text.getvalue().encode())

    def _save(self, position: int, state: State, totals: Totals) -> None:
        """Keep the state; `position` is where the frames before it end in the file."""
        stream = state.streams[0].bit_generator.state
        about: dict[str, Any] = {"totals": asdict(totals), "position": position, "stream": stream}
        save_state(self.saved, _KIND, about, {name: getattr(state, name).clone() for name in _KEPT}, self.fingerprint)


def _push(state: State, labels: Labels) -> None:
    state.forces = torch.from_numpy(np.array(labels.forces, dtype=np.float64))
    state.energy[0] = labels.energy
