"""Samples on disk as they come: extended XYZ, compressed if its name ends in .xz or .gz, which any tool reads.

A file is a row of whole frames up to a position that a checkpoint remembers; what a killed run wrote after it is cut off.
"""

import gzip
import lzma
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from al_leignn.config import ExploreConfig
from al_leignn.core import Deviation, Frame, Origin
from al_leignn.explore.batch import Sample
from al_leignn.shapes import Float

_ENOUGH = 1 << 20
"""Bytes of text that are kept back at most, for the sake of compression."""

_ENTRY = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))')
"""A word of the second line of a frame."""

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
    config
        How the MD runs: frames tell their time, the time step and the thermostat.
    """

    def __init__(self, path: Path, config: ExploreConfig, position: int = 0) -> None:
        self.path = path
        self.config = config
        self._pack: Callable[[bytes], bytes] = _PACKERS.get(path.suffix, bytes)
        self._waiting: list[bytes] = []
        self._size = 0
        with path.open("ab") as file:
            file.truncate(position)

    def add(self, sample: Sample) -> None:
        """Append a sample."""
        text = frame_text(sample, self.config)
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


def frame_text(sample: Sample, config: ExploreConfig) -> bytes:
    """A frame of extended XYZ.

    Of the frame: potential energy (eV), kinetic temperature and target (K), time and time step (fs), thermostat. Of each atom:
    force deviation and norm of the committee's mean force (eV/Å).
    """
    atoms, origin = sample.frame.atoms, sample.frame.origin
    lattice = f'Lattice="{" ".join(f"{x:.8f}" for x in atoms.cell.array.ravel())}" ' if atoms.cell.rank == 3 else ""
    pbc = " ".join("T" if flag else "F" for flag in atoms.pbc)
    bath = "" if config.ensemble == "nve" else f"thermostat={config.thermostat} friction_per_ps={config.friction_per_ps!r} "
    head = (
        f'{lattice}Properties=species:S:1:pos:R:3:force_deviation:R:1:mean_force:R:1 pbc="{pbc}" energy={sample.energy!r} '
        f"temperature={sample.temperature!r} target_temperature={origin.temperature!r} walker={origin.walker} "
        f"md_step={origin.step} time_fs={origin.step * config.timestep_fs:g} timestep_fs={config.timestep_fs!r} {bath}"
        f"max_force_deviation={sample.deviation.max!r} uid=id:{sample.frame.uid} "
        f"energy_deviation={float(sample.deviation.energy)!r}"
    )
    rows: list[list[float]] = np.column_stack([atoms.positions, sample.deviation.per_atom, sample.deviation.mean_force]).tolist()
    lines = [
        f"{symbol:<2} {x:16.8f} {y:16.8f} {z:16.8f} {d:16.8f} {f:16.8f}"
        for symbol, (x, y, z, d, f) in zip(atoms.symbols, rows, strict=True)
    ]
    return "\n".join([str(len(atoms)), head, *lines, ""]).encode()


def read_samples(path: Path, iteration: int) -> list[Sample]:
    """The samples of a file that a `Recorder` wrote, by walker and then by step."""
    opened: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    samples = []
    with opened(path, "rt", encoding="utf-8") as file:
        while count := file.readline():
            head = {match[1]: match[2] or match[3] for match in _ENTRY.finditer(file.readline())}
            rows = [line.split() for line in islice(file, int(count))]
            samples.append(_sample_of(head, [row[0] for row in rows], np.array([row[1:] for row in rows], float), iteration))
    return sorted(samples, key=lambda s: (s.frame.origin.walker, s.frame.origin.step))


def _sample_of(
    head: Mapping[str, str], symbols: Sequence[str], columns: Float[np.ndarray, "n_atoms 5"], iteration: int
) -> Sample:
    cell = np.array(head["Lattice"].split(), float).reshape(3, 3) if "Lattice" in head else None
    atoms = Atoms(symbols, columns[:, :3], cell=cell, pbc=[flag == "T" for flag in head["pbc"].split()])
    origin = Origin("md", iteration, int(head["walker"]), int(head["md_step"]), float(head["target_temperature"]))
    return Sample(
        frame=Frame(head["uid"].removeprefix("id:"), atoms, origin),
        deviation=Deviation(columns[:, 3], float(head["energy_deviation"]), columns[:, 4]),
        energy=float(head["energy"]),
        temperature=float(head["temperature"]),
    )
