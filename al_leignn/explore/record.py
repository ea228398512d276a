"""Samples on disk as they come: extended XYZ, compressed if its name ends in .xz or .gz, which any tool reads.

A file is a row of whole frames up to a position that a checkpoint remembers; what a killed run wrote after it is cut off.
"""

import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms

from al_leignn.core import Deviation, Frame, Origin
from al_leignn.explore.batch import Sample

_ENOUGH = 1 << 20
"""Bytes of text that are kept back at most, for the sake of compression."""

_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lambda text: lzma.compress(text, preset=1),
    ".gz": lambda text: gzip.compress(text, compresslevel=6, mtime=0),
}
"""Both formats allow parts to be put one after another."""


class Recorder:
    """Appends samples to a file; `mark` makes all of them safe.

    Parameters
    ----------
    path
        Made if it is not there; an existing file is cut to `position` bytes.
    timestep_fs
        For the time of each frame.
    """

    def __init__(self, path: Path, timestep_fs: float, position: int = 0) -> None:
        self.path = path
        self.timestep_fs = timestep_fs
        self._pack: Callable[[bytes], bytes] = _PACKERS.get(path.suffix, bytes)
        self._waiting: list[bytes] = []
        self._size = 0
        with path.open("ab") as file:
            file.truncate(position)

    def add(self, sample: Sample) -> None:
        """Append a sample."""
        text = frame_text(sample, self.timestep_fs)
        self._waiting.append(text)
        self._size += len(text)
        if self._size > _ENOUGH:
            self._write()

    def mark(self) -> int:
        """Bring all samples to disk; returns the position in the file behind them."""
        self._write()
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def _write(self) -> None:
        if self._waiting:
            with self.path.open("ab") as file:
                file.write(self._pack(b"".join(self._waiting)))
            self._waiting, self._size = [], 0


def frame_text(sample: Sample, timestep_fs: float) -> bytes:
    """A frame of extended XYZ.

    Of the frame: potential energy (eV), kinetic temperature and target (K), time (fs). Of each atom: force deviation and norm
    of the committee's mean force (eV/Å).
    """
    atoms, origin = sample.frame.atoms, sample.frame.origin
    lattice = f'Lattice="{" ".join(f"{x:.8f}" for x in atoms.cell.array.ravel())}" ' if atoms.cell.rank == 3 else ""
    pbc = " ".join("T" if flag else "F" for flag in atoms.pbc)
    head = (
        f'{lattice}Properties=species:S:1:pos:R:3:force_deviation:R:1:mean_force:R:1 pbc="{pbc}" energy={sample.energy!r} '
        f"temperature={sample.temperature!r} target_temperature={origin.temperature!r} walker={origin.walker} "
        f"md_step={origin.step} time_fs={origin.step * timestep_fs:g} max_force_deviation={sample.deviation.max!r} "
        f"energy_deviation={float(sample.deviation.energy)!r}"
    )
    rows: list[list[float]] = np.column_stack([atoms.positions, sample.deviation.per_atom, sample.deviation.mean_force]).tolist()
    lines = [
        f"{symbol:<2} {x:16.8f} {y:16.8f} {z:16.8f} {d:16.8f} {f:16.8f}"
        for symbol, (x, y, z, d, f) in zip(atoms.symbols, rows, strict=True)
    ]
    return "\n".join([str(len(atoms)), head, *lines, ""]).encode()


def read_samples(path: Path, iteration: int) -> list[Sample]:
    """The samples of a file, by walker and then by step."""
    from ase.io import read

    found = read(path, ":", format="extxyz") if path.stat().st_size else []
    samples = [_sample_of(atoms, iteration) for atoms in found]
    return sorted(samples, key=lambda s: (s.frame.origin.walker, s.frame.origin.step))


def _sample_of(atoms: Atoms, iteration: int) -> Sample:
    info = atoms.info
    origin = Origin("md", iteration, int(info["walker"]), int(info["md_step"]), float(info["target_temperature"]))
    per_atom, mean_force = (np.asarray(atoms.arrays[name], dtype=float) for name in ("force_deviation", "mean_force"))
    return Sample(
        frame=Frame.of(atoms, origin),
        deviation=Deviation(per_atom, float(info["energy_deviation"]), mean_force),
        energy=float(atoms.get_potential_energy()),
        temperature=float(info["temperature"]),
    )
