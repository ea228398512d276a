"""Trajectories to take observables from: the user's AIMD, and MD that is judged against it.

Files are read through ASE (extended XYZ, also compressed; ASE's own; VASP's XDATCAR, OUTCAR, vasprun.xml; QE; CP2K).
What they leave out (time, temperature) is asked for, never guessed.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols
from ase.formula import Formula
from ase.geometry import cell_to_cellpar

from al_leignn.errors import DataError
from al_leignn.shapes import Bool, Float, Int
from al_leignn.units import FS, KB
from al_leignn.userdata import StoredLabels, read_parts, stored_labels
from al_leignn.validate.statistics import Blocks, equilibrated

MIN_FRAMES = 20

AMBIGUOUS = 0.4
"""Displacements between frames, in lattice vectors, from which the nearest image may be the wrong one."""

UNEVEN = 1e-3
"""Relative differences between the times from frame to frame that rounding explains."""

CONSTANT = 0.1
"""Scatter of the total energy over that of the potential energy below which it counts as conserved (1.4 in the canonical ensemble
of a harmonic crystal)."""

SAME_CELL = 2e-3
"""Relative differences between lattice parameters that rounding explains."""

SAME_TEMPERATURE = 0.05
"""Relative difference of two temperatures that counts as one temperature, beside the error of a kinetic one."""

_TIMES = {"time_fs": 1.0, "time_ps": 1000.0}
"""Keys of frames that say their unit, in fs."""

# What codes write of the time step (fs) and the thermostat's temperature (K) at the start of their output.
_STEP = (
    re.compile(rb'<i name="POTIM">\s*([\d.E+-]+)'),
    re.compile(rb"POTIM\s*=\s*([\d.E+-]+)"),
    re.compile(rb"Time step\s*=\s*[\d.]+ a\.u\.,\s*([\d.]+) femto-seconds"),
)
_TARGET = (re.compile(rb'<i name="TEBEG">\s*([\d.E+-]+)'), re.compile(rb"TEBEG\s*=\s*([\d.E+-]+)"))
_HEADER = 500_000
"""Bytes at the start of an output in which these are looked for."""


@dataclass(frozen=True)
class Trajectory:
    """Frames of one simulation, evenly spaced in time, in Å, fs, eV and K. Atoms never jump."""

    name: str
    """What the user calls it."""
    numbers: Int[np.ndarray, " atoms"]
    pbc: Bool[np.ndarray, "3"]
    cells: Float[np.ndarray, "frames 3 3"]
    positions: Float[np.ndarray, "frames atoms 3"]
    """Unwrapped: without jumps across the cell's faces."""
    interval_fs: float
    velocities: Float[np.ndarray, "frames atoms 3"] | None = None
    """Å/fs."""
    temperature: float | None = None
    temperature_error: float = 0.0
    """Standard error of a temperature that was measured from motion; 0 for a thermostat's."""
    energies: Float[np.ndarray, " frames"] | None = None
    """Potential energy of the cell, eV."""
    kinetic: Float[np.ndarray, " frames"] | None = None
    """Kinetic energy, eV."""
    freedom: int = 0
    """Degrees of freedom that carry it."""
    forces: Float[np.ndarray, "frames atoms 3"] | None = None
    driven: bool = True
    """By these forces, not by those of another potential."""
    stresses: Float[np.ndarray, "frames 6"] | None = None
    """Of the potential, positive under tension, eV/Å^3."""
    level: str = ""
    """Digest of the level of theory, where the frames name it."""
    thermostat: str = ""
    """langevin or csvr, where the frames name it."""
    friction_per_ps: float | None = None
    """Of the thermostat, where the frames name it."""
    timestep_fs: float | None = None
    """Of the MD, where the frames name it."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def length_ps(self) -> float:
        return len(self) * self.interval_fs / 1000.0

    @property
    def species(self) -> list[int]:
        """Atomic numbers that occur, ascending."""
        return sorted(set(self.numbers.tolist()))

    @property
    def formula(self) -> str:
        return Formula.from_list([chemical_symbols[z] for z in self.numbers]).format("metal")

    @property
    def fixed_cell(self) -> bool:
        return bool(np.allclose(self.cells, self.cells[0], atol=1e-6))

    @property
    def total_energies(self) -> Float[np.ndarray, " frames"] | None:
        """Potential and kinetic energy, eV; None where it is not known, and where it does not change at all."""
        if self.energies is None or self.kinetic is None:
            return None
        total = self.energies + self.kinetic
        return None if total.std() < CONSTANT * self.energies.std() else total

    @property
    def bath(self) -> tuple[float, float] | None:
        """What averages that do not depend on the potential do depend on: the thermostat's temperature (K), and the time step
        (fs), whose error they show. None where either is not known.
        """
        if not self.thermostat or self.timestep_fs is None or self.temperature is None or self.temperature_error > 0:
            return None
        return self.temperature, self.timestep_fs

    @property
    def relaxation_ps(self) -> float:
        """Time at the start before the potential energy is in equilibrium; 0 where it always is, or is not known."""
        return 0.0 if self.energies is None else equilibrated(self.energies) * self.interval_fs / 1000.0

    def frame(self, n: int) -> Atoms:
        """One frame, without velocities."""
        return Atoms(numbers=self.numbers, positions=self.positions[n], cell=self.cells[n], pbc=self.pbc)

    def without_drift(self) -> Float[np.ndarray, "frames atoms 3"]:
        """Positions relative to the centre of mass, Å."""
        weights = atomic_masses[self.numbers] / atomic_masses[self.numbers].sum()
        return np.asarray(self.positions - np.einsum("a,fax->fx", weights, self.positions)[:, None])


def read_trajectory(
    path: Path,
    *,
    interval_fs: float | None = None,
    temperature: float | None = None,
    skip_ps: float = 0.0,
    skip_share: float = 0.0,
) -> Trajectory:
    """Read a trajectory; atoms are followed across the faces of the cell by minimum image.

    Parameters
    ----------
    interval_fs
        Time between frames. What the frames themselves say goes first (`time_fs` or `time_ps`; CP2K: `time`); without either,
        it is the time step of VASP (POTIM) or QE.
    temperature
        Of the thermostat; by default what the file says (VASP's TEBEG, `target_temperature` of the frames), else the mean
        kinetic temperature.
    skip_ps
        To leave out at the start, where the system was not in equilibrium yet.
    skip_share
        The same as a share of all frames.

    Raises
    ------
    DataError
        If the file cannot be read, is too short, does not tell its time, has frames of different atoms, or skips so much
        between frames that atoms cannot be followed.
    """
    if not path.exists():
        raise DataError("there is no such file", where=str(path))
    images = [atoms for part in read_parts(path) for atoms in part.images]
    step, target = _said_by_the_code(path)
    return trajectory(
        images,
        str(path),
        interval_fs=_interval(images, str(path)) or interval_fs or step,
        temperature=temperature or target or _target(images),
        skip_ps=skip_ps,
        skip_share=skip_share,
    )


def trajectory(
    images: Sequence[Atoms],
    name: str,
    *,
    interval_fs: float | None,
    temperature: float | None = None,
    skip_ps: float = 0.0,
    skip_share: float = 0.0,
) -> Trajectory:
    """A trajectory of frames in memory; see `read_trajectory`."""
    if interval_fs is None:
        raise DataError(
            "the trajectory does not say how much time passes between its frames",
            where=name,
            fix="give it in fs with --interval-fs (VASP: POTIM x NBLOCK)",
        )
    if not (np.isfinite(interval_fs) and interval_fs > 0):
        raise DataError(f"the time between frames is {interval_fs:g} fs", where=name, fix="give a positive number")
    images = images[round(1000.0 * skip_ps / interval_fs + skip_share * len(images)) :]
    if len(images) < MIN_FRAMES:
        raise DataError(
            f"{len(images)} frames are too few to say anything",
            where=name,
            fix=f"give at least {MIN_FRAMES}, and expect to need many thousand fs",
        )
    _check_same_atoms(images, name)
    labels = _labels(images, name)
    velocities = np.array([a.get_velocities() for a in images]) * FS if all(a.has("momenta") for a in images) else None
    kinetic, freedom = _kinetic(images, velocities)
    error = 0.0
    if temperature is None and kinetic is not None:
        temperature, error = _temperature(2.0 * kinetic / (KB * freedom), len(images[0]))
    cells = np.array([np.asarray(a.cell) for a in images])
    pbc = np.asarray(images[0].pbc)
    return Trajectory(
        name=name,
        numbers=images[0].numbers.copy(),
        pbc=pbc,
        cells=cells,
        positions=unwrapped(np.array([a.positions for a in images]), cells, pbc, where=name),
        interval_fs=interval_fs,
        velocities=velocities,
        temperature=temperature,
        temperature_error=error,
        energies=_all([x.energy for x in labels]),
        kinetic=kinetic,
        freedom=freedom,
        forces=_all([x.forces for x in labels]),
        stresses=_all([x.stress for x in labels]),
        level=str(images[0].info.get("level", "")).removeprefix("id:"),
        thermostat=str(images[0].info.get("thermostat", "")),
        friction_per_ps=images[0].info.get("friction_per_ps"),
        timestep_fs=images[0].info.get("timestep_fs"),
    )


def unwrapped(
    positions: Float[np.ndarray, "frames atoms 3"],
    cells: Float[np.ndarray, "frames 3 3"],
    pbc: Bool[np.ndarray, "3"],
    *,
    where: str,
) -> Float[np.ndarray, "frames atoms 3"]:
    """Positions without jumps: from frame to frame each atom goes to its nearest image.

    Raises
    ------
    DataError
        If an atom moves by more than 0.4 lattice vectors between frames, so that the nearest image may be the wrong one.
    """
    if not pbc.any():
        return positions
    if (np.abs(np.linalg.det(cells)) < 1e-9).any():
        # Directions without periodicity may lack a vector; what it is does not matter, since nothing wraps along it.
        cells = np.array([np.asarray(Atoms(cell=cell).cell.complete()) for cell in cells])
    scaled = np.einsum("fax,fxy->fay", positions, np.linalg.inv(cells))
    steps = np.diff(scaled, axis=0)
    steps[..., pbc] -= np.rint(steps[..., pbc])
    far = np.abs(steps[..., pbc]).max(axis=2)
    if (far > AMBIGUOUS).any():
        frame, atom = np.argwhere(far > AMBIGUOUS)[0].tolist()
        raise DataError(
            f"atom {atom} moves by {far[frame, atom]:.2f} lattice vectors between two frames: it cannot be followed across the "
            "faces of the cell",
            where=f"{where}, frames {frame} and {frame + 1} ({(far > AMBIGUOUS).sum()} such moves)",
            fix="save frames more often, keep the order of atoms, and do not join separate runs",
        )
    path = scaled[:1] + np.concatenate([np.zeros_like(scaled[:1]), np.cumsum(steps, axis=0)])
    return np.asarray(np.einsum("fax,fxy->fay", path, cells))


def check_comparable(reference: Trajectory, md: Trajectory) -> None:
    """Refuse a trajectory that is not of the same system under the same conditions.

    Raises
    ------
    DataError
        For another composition, periodicity, cell or temperature.
    """
    where = f"{reference.name} and {md.name}"
    if sorted(reference.numbers.tolist()) != sorted(md.numbers.tolist()):
        raise DataError(
            f"another composition: the reference is {reference.formula}, the MD {md.formula}",
            where=where,
            fix="run MD from a frame of the reference",
        )
    if (reference.pbc != md.pbc).any():
        raise DataError(
            "the two are not periodic along the same directions", where=where, fix="run MD from a frame of the reference"
        )
    if reference.fixed_cell != md.fixed_cell:
        fixed = "reference" if reference.fixed_cell else "MD"
        raise DataError(f"only the {fixed} has a fixed cell", where=where, fix="use one ensemble for both: --ensemble nvt or npt")
    ours, theirs = (cell_to_cellpar(t.cells[0]) for t in (reference, md))
    if reference.fixed_cell and reference.pbc.all() and not np.allclose(ours, theirs, rtol=SAME_CELL):
        told = " and ".join(" ".join(f"{x:.3f}" for x in cell) for cell in (ours, theirs))
        raise DataError(f"another cell (a b c in Å, angles): {told}", where=where, fix="run MD from a frame of the reference")
    if reference.temperature is None or md.temperature is None:
        return
    error = 4.0 * np.hypot(reference.temperature_error, md.temperature_error)
    if abs(reference.temperature - md.temperature) > max(SAME_TEMPERATURE * reference.temperature, error):
        raise DataError(
            f"another temperature: the reference is at {reference.temperature:.0f} K, the MD at {md.temperature:.0f} K",
            where=where,
            fix="run MD at the temperature of the reference, or say with --temperature what it was if the file misleads",
        )


def _check_same_atoms(images: Sequence[Atoms], name: str) -> None:
    first = images[0]
    for n, atoms in enumerate(images):
        if len(atoms) != len(first) or (atoms.numbers != first.numbers).any() or (atoms.pbc != first.pbc).any():
            raise DataError(
                "the frames are not of one system: atoms, their order or the periodicity change",
                where=f"{name}, frame {n}",
                fix="give one simulation in each file",
            )
        if not (np.isfinite(atoms.positions).all() and np.isfinite(np.asarray(atoms.cell)).all()):
            raise DataError("positions or cell are not finite numbers", where=f"{name}, frame {n}")


def _labels(images: Sequence[Atoms], name: str) -> list[StoredLabels]:
    labels = []
    for n, atoms in enumerate(images):
        try:
            labels.append(stored_labels(atoms))
        except ValueError as error:
            raise DataError(str(error), where=f"{name}, frame {n}") from None
    return labels


def _all(values: Sequence[float | np.ndarray | None]) -> np.ndarray | None:
    """An array, if every frame has a value (VASP writes its stress at each step or at none)."""
    return None if any(value is None for value in values) else np.array(values)


def _interval(images: Sequence[Atoms], where: str) -> float | None:
    """Time between frames from what the frames say; None if they say nothing."""
    keys = dict(_TIMES)
    if images and {"i", "time", "E"} <= images[0].info.keys():  # the comment line of CP2K's trajectories
        keys["time"] = 1.0
    for key, unit in keys.items():
        if len(images) > 1 and all(key in atoms.info for atoms in images):
            steps = unit * np.diff([float(atoms.info[key]) for atoms in images])
            usual = float(np.median(steps))
            odd = np.flatnonzero(np.abs(steps - usual) > UNEVEN * abs(usual))
            if usual <= 0 or len(odd):
                n = int(odd[0]) if len(odd) else 0
                raise DataError(
                    f"frames are not evenly spaced in time: {steps[n]:g} fs where {usual:g} fs are usual",
                    where=f"{where}, frames {n} and {n + 1}",
                    fix="remove frames that a restart repeated, or fill the gap",
                )
            return usual
    return None


def _target(images: Sequence[Atoms]) -> float | None:
    """The thermostat's temperature, K, if all frames name the same."""
    found = {float(atoms.info.get("target_temperature", 0.0)) for atoms in images}
    return found.pop() or None if len(found) == 1 else None


def _said_by_the_code(path: Path) -> tuple[float | None, float | None]:
    """Time step (fs) and thermostat temperature (K) from the head of VASP's or QE's output."""
    if not path.is_file():
        return None, None
    with path.open("rb") as file:
        head = file.read(_HEADER)
    found = []
    for patterns in (_STEP, _TARGET):
        match = next((match for pattern in patterns if (match := pattern.search(head))), None)
        found.append(float(match[1]) if match and float(match[1]) > 0 else None)
    return found[0], found[1]


def _kinetic(
    images: Sequence[Atoms], velocities: Float[np.ndarray, "frames atoms 3"] | None
) -> tuple[Float[np.ndarray, " frames"] | None, int]:
    """Kinetic energy (eV) from velocities or from the temperatures of the frames, and degrees of freedom."""
    n = len(images[0])
    if velocities is not None:
        masses = atomic_masses[images[0].numbers]
        kinetic = 0.5 * np.einsum("a,fax,fax->f", masses, velocities / FS, velocities / FS)
        still = np.abs(np.einsum("a,fax->fx", masses, velocities)).max() < 1e-6 * np.abs(velocities).max() * masses.sum()
        return kinetic, 3 * n - (3 if still and n > 1 else 0)
    if all("temperature" in atoms.info for atoms in images):
        return 1.5 * n * KB * np.array([float(atoms.info["temperature"]) for atoms in images]), 3 * n
    return None, 3 * n


def _temperature(temperatures: Float[np.ndarray, " frames"], n: int) -> tuple[float, float]:
    """Mean of kinetic temperatures and its standard error, K."""
    mean = float(temperatures.mean())
    blocks = Blocks.of(temperatures[:, None])
    # Too short to show its own error: it is taken for a single sample of the canonical distribution.
    return mean, float(blocks.error()[0]) if blocks.enough else mean * math.sqrt(2.0 / (3 * n))
