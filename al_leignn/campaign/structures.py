"""Reading the user's structure files, and refusing those that cannot be simulated."""

import shlex
import warnings
from pathlib import Path

import numpy as np
from ase import Atoms

from al_leignn.campaign.layout import Layout
from al_leignn.config import CampaignConfig
from al_leignn.errors import StructureError
from al_leignn.store import read_frames, refuse_endless_file

TOO_CLOSE = 0.5
"""Å. No two nuclei of a real structure are this close (H2: 0.74)."""


def read_structures(path: Path) -> list[Atoms]:
    """All structures in a file: CIF through pymatgen (occupancies checked), anything else through ASE.

    Raises
    ------
    StructureError
        If the file is missing, empty, binary or cannot be parsed; if sites are partially occupied, atoms coincide,
        or a periodic cell has no volume.
    """
    where = str(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise StructureError("there is no such file", where=where) from None
    except OSError as error:
        raise StructureError(f"the file cannot be read: {error.strerror}", where=where) from None
    if not raw.strip():
        raise StructureError("the file is empty", where=where)
    packed = path.suffix in (".gz", ".xz", ".bz2", ".traj", ".db")
    if b"\0" in raw and not packed:
        raise StructureError(
            "the file is binary, not a structure file", where=where, fix="give a CIF, POSCAR or extended XYZ file"
        )
    images = _read_cif(path) if path.suffix.lower() == ".cif" else _read_ase(path)
    if not images:
        raise StructureError("the file holds no structure", where=where)
    for n, atoms in enumerate(images):
        check_structure(atoms, where if len(images) == 1 else f"{where}, structure {n}")
    return images


def _read_cif(path: Path) -> list[Atoms]:
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.cif import CifParser

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on rounding of fractional coordinates; what matters is raised
            found = CifParser(path, occupancy_tolerance=1.0).parse_structures(primitive=False, on_error="raise")
    except Exception as error:  # noqa: BLE001  the parser raises whatever it trips over
        raise StructureError(f"not a readable CIF file: {str(error) or type(error).__name__}", where=str(path)) from None
    images = []
    for structure in found:
        if not structure.is_ordered:
            sites = [site.species_string for site in structure if not site.is_ordered]
            raise StructureError(
                f"{len(sites)} site(s) are partially occupied or mixed ({sites[0]})",
                where=str(path),
                fix="make an ordered structure first (for instance a special quasirandom structure)",
            )
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        images.append(Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True))
    return images


def _read_ase(path: Path) -> list[Atoms]:
    from ase.io import read

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix in (".xyz", ".extxyz"):
                refuse_endless_file(path)
            images = read(path, ":")
    except Exception as error:  # noqa: BLE001  ASE's readers raise whatever they trip over
        reason = str(error) or type(error).__name__
        raise StructureError(
            f"not a readable structure file: {reason}", where=str(path), fix="CIF, POSCAR and extended XYZ work"
        ) from None
    return [Atoms(numbers=a.numbers, positions=a.positions, cell=a.cell, pbc=a.pbc) for a in images]


def spread_frames(path: Path, most: int) -> list[tuple[int, Atoms]]:
    """At most so many frames of a file without labels, evenly spread, each with its number; errors as `read_structures`."""
    images = read_structures(path)
    chosen = np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int))
    return [(int(n), images[n]) for n in chosen]


def check_structure(atoms: Atoms, where: str) -> None:
    """Refuse what cannot be simulated; raises `StructureError`."""
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms", where=where)
    if not (np.isfinite(atoms.positions).all() and np.isfinite(np.asarray(atoms.cell)).all()):
        raise StructureError("positions or cell are not finite numbers", where=where)
    if (atoms.numbers < 1).any():
        raise StructureError("an atom has no known element", where=where)
    if atoms.pbc.any() and (any(not atoms.cell[a].any() for a in range(3) if atoms.pbc[a])):
        raise StructureError("the structure is periodic along an axis without a cell vector", where=where)
    if atoms.pbc.all() and atoms.cell.volume < 1.0:
        raise StructureError(f"the cell has a volume of {atoms.cell.volume:.2g} Å^3", where=where)
    distances = atoms.get_all_distances(mic=True) + np.diag(np.full(len(atoms), np.inf))
    first, second = divmod(int(distances.argmin()), len(atoms))
    if distances[first, second] < TOO_CLOSE:
        raise StructureError(
            f"atoms {first} and {second} are {distances[first, second]:.3f} Å apart",
            where=where,
            fix="remove the duplicate or mend the structure",
        )


def read_starts(layout: Layout, config: CampaignConfig) -> list[Atoms]:
    """The campaign's structures, repeated for exploration and labelling.

    Raises
    ------
    StructureError
        If a file does not hold exactly one: walkers are counted by files.
    """
    starts = []
    for path in layout.inside(config.structures):
        images = _read_plain(path) or [frame.atoms for frame in read_frames(path)]
        if len(images) != 1:
            raise StructureError(
                f"the file holds {len(images)} structures instead of one",
                where=str(path),
                fix="give each a file of its own (`al-leignn init` does)",
            )
        starts.append(images[0].repeat(config.explore.supercell) if images[0].pbc.all() else images[0])
    return starts


def _read_plain(path: Path) -> list[Atoms]:
    """The one structure of a file as `init` writes it; empty for anything else, which is ASE's to read.

    ASE's reader takes half a second to load: longer than `check` may take.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    header = dict(word.split("=", 1) for word in shlex.split(lines[1]) if "=" in word) if len(lines) > 2 else {}
    if header.get("Properties") != "species:S:1:pos:R:3" or lines[0].strip() != str(len(lines) - 2):
        return []
    rows = [line.split() for line in lines[2:]]
    return [
        Atoms(
            symbols=[row[0] for row in rows],
            positions=[[float(x) for x in row[1:4]] for row in rows],
            cell=np.array(header.get("Lattice", "0 " * 9).split(), dtype=float).reshape(3, 3),
            pbc=[flag == "T" for flag in header.get("pbc", "F F F").split()],
        )
    ]
