"""Labelled frames that users already have: extended XYZ, ASE databases, DeePMD sets, outputs of VASP, QE and CP2K.

ASE reads what it can; DeePMD sets and CP2K outputs go through dpdata (the optional extra `dpdata`). Whatever the source,
labels leave here in the package's units and signs (see `units`).
"""

import bz2
import gzip
import lzma
import os
import re
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from al_leignn.core import Frame, LabelledFrame, Labels, Origin
from al_leignn.errors import DataError
from al_leignn.shapes import Float
from al_leignn.store import refuse_endless, refuse_endless_file
from al_leignn.units import GPA, voigt

BLOCKS_PER_FILE = 20
DATA = "data:"
"""Before the name of a file in the origin of the frames that were read from it."""
SHOWN = 5
"""Frames named in a message; the others are only counted."""


_OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}

_CP2K_STRESS = re.compile(r"STRESS\| .*stress tensor \[(GPa|bar)\]\n.*\n((?: STRESS\|\s+[xyz]\s.*\n){3})")
_CP2K_UNITS = {"GPa": GPA, "bar": 1e-4 * GPA}


class DataKeys(NamedTuple):
    """Names of the labels in the user's files."""

    energy: str = "REF_energy"
    forces: str = "REF_forces"
    stress: str = "REF_stress"


class Part(NamedTuple):
    """One trajectory of a file or folder; its name inside it is empty where there is only one."""

    name: str
    images: list[Atoms]


def read_user_files(paths: Sequence[Path], level: str, keys: DataKeys = DataKeys()) -> list[LabelledFrame]:  # noqa: B008  immutable
    """Read several files or folders; those of one name (`run1/OUTCAR`, `run2/OUTCAR`) are told apart by their folders.

    Errors as `read_user_data`.
    """
    whole = [path.absolute() for path in paths]
    root = Path(os.path.commonpath([path.parent for path in whole])) if whole else Path()
    return [
        frame
        for path, full in zip(paths, whole, strict=True)
        for frame in read_user_data(path, level, keys, name=full.relative_to(root).as_posix())
    ]


def read_user_data(path: Path, level: str, keys: DataKeys = DataKeys(), *, name: str | None = None) -> list[LabelledFrame]:  # noqa: B008  immutable
    """Read the labelled frames of a file or of a DeePMD folder.

    Files may be all that ASE reads with energies and forces (extended XYZ, also .xz and .gz; ASE databases; VASP's OUTCAR
    and vasprun.xml; the output of QE's pw.x), and the output of a single CP2K calculation. Folders may be DeePMD sets
    (npy, mixed or raw, one system or a tree of them).

    Labels come from the given keys; where a frame has none of them, from the results stored with it. Of the stored
    energies the force-consistent one is taken (ASE's `free_energy`). Neighbouring frames share a trajectory block.

    Parameters
    ----------
    level
        The level of theory that the user says they have.
    name
        What the frames are called in messages, with their number; by default the name of the file.

    Raises
    ------
    DataError
        If the file cannot be read, is empty, needs dpdata where that is not installed, or a frame lacks energy or forces.
    """
    if not path.exists():
        raise DataError("there is no such file", where=str(path))
    frames: list[LabelledFrame] = []
    faults: list[tuple[int, str]] = []
    count = 0
    for part, images in read_parts(path):
        size = -(-len(images) // BLOCKS_PER_FILE)
        kind = DATA + "/".join(word for word in (name or path.name, part) if word)
        for n, atoms in enumerate(images):
            try:
                labels = _labels(atoms, keys)
            except ValueError as error:
                faults.append((count + n, str(error)))
                continue
            frames.append(LabelledFrame(Frame.of(atoms, Origin(kind, walker=n // size, step=n)), labels, level))
        count += len(images)
    if not count:
        raise DataError("the file holds no frames", where=str(path))
    if faults:
        raise DataError(
            f"{len(faults)} of {count} frame(s) cannot be used: {faults[0][1]}",
            where=f"{path}, {'frame' if len(faults) == 1 else 'frames'} {listed([str(n) for n, _ in faults])}",
            fix="name the keys of your file, or remove frames without labels",
        )
    return frames


def read_isolated_atoms(path: Path, keys: DataKeys = DataKeys()) -> dict[int, float]:  # noqa: B008  immutable
    """Energies (eV) by atomic number from frames of one atom each; forces are not asked for.

    Raises
    ------
    DataError
        If the file cannot be read, a frame has several atoms or no energy, or two frames disagree.
    """
    if not path.exists():
        raise DataError("there is no such file", where=str(path))
    e0s: dict[int, float] = {}
    for n, atoms in enumerate(image for part in read_parts(path) for image in part.images):
        where = f"{path}, frame {n}"
        energy = _find(atoms, keys.energy, ("free_energy", "energy"))
        if len(atoms) != 1 or energy is None or not np.isfinite(float(energy)):
            raise DataError(
                "no isolated atom with an energy", where=where, fix="give frames of one atom each, with their energies"
            )
        if e0s.setdefault(int(atoms.numbers[0]), float(energy)) != float(energy):
            raise DataError(f"{atoms.symbols} has two energies", where=where, fix="keep one of them")
    return e0s


def frame_name(labelled: LabelledFrame) -> str:
    """What a user calls a frame that came from their data: file and number, counted from 0."""
    origin = labelled.frame.origin
    return f"{origin.kind.removeprefix(DATA)} #{origin.step}" if origin.kind.startswith(DATA) else labelled.frame.uid


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


# --- labels -------------------------------------------------------------------------------------------------


class StoredLabels(NamedTuple):
    """What a frame of the user's has: energy (eV), forces (eV/Å), stress (eV/Å^3, Voigt), None where there is none."""

    energy: float | None
    forces: Float[np.ndarray, "n_atoms 3"] | None
    stress: Float[np.ndarray, "6"] | None


def stored_labels(atoms: Atoms, keys: DataKeys = DataKeys()) -> StoredLabels:  # noqa: B008  immutable
    """The labels that a frame has, by the given keys or else as stored results; raises ValueError for what is no number."""
    energy = _find(atoms, keys.energy, ("free_energy", "energy"))
    forces = _find(atoms, keys.forces, ("forces",))
    stress = _find(atoms, keys.stress, ("stress",))
    try:
        return StoredLabels(
            energy=None if energy is None else float(energy),
            forces=None if forces is None else np.asarray(forces, dtype=float).reshape(len(atoms), 3),
            stress=None if stress is None else _six(np.asarray(stress, dtype=float)),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"labels cannot be read: {error}") from None


def _labels(atoms: Atoms, keys: DataKeys) -> Labels:
    """Labels of one frame; raises ValueError saying what is wrong with them."""
    energy, forces, stress = stored_labels(atoms, keys)
    missing = [name for name, value in (("energy", energy), ("forces", forces)) if value is None]
    if energy is None or forces is None:
        raise ValueError(f"no {' and no '.join(missing)} (looked for {keys.energy}, {keys.forces}, and stored energy and forces)")
    return Labels(energy, forces, stress)


def _find(atoms: Atoms, key: str, stored: Sequence[str]) -> Any:
    """The value of `key`, else the first of the `stored` results there is, else None."""
    results = {} if atoms.calc is None else atoms.calc.results
    # ASE databases keep numbers and arrays of users in dictionaries of their own.
    places = (atoms.info, atoms.arrays, atoms.info.get("key_value_pairs", {}), atoms.info.get("data", {}), results)
    for name, where in [*((key, place) for place in places), *((name, p) for name in stored for p in (results, *places))]:
        if where.get(name) is not None:
            return where[name]
    return None


def _six(stress: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "6"]:
    """A stress given as 6 (Voigt), 9 or 3x3 numbers, as 6."""
    return stress.reshape(6) if stress.size == 6 else voigt(stress.reshape(3, 3))


# --- readers ------------------------------------------------------------------------------------------------


def read_parts(path: Path) -> list[Part]:
    """Trajectories in a file or folder, with whatever ASE (or dpdata) finds in them.

    Raises
    ------
    DataError
        If it cannot be read, or needs dpdata where that is not installed.
    """
    from ase.io import iread

    try:
        with catch_warnings():
            simplefilter("ignore")  # readers warn of what they skip (k points, units they guess); labels are checked here
            if path.is_dir():
                return _folder(path)
            if _is_cp2k(path):
                return [Part("", _cp2k(path))]
            if path.suffix == ".db":
                from ase.db import connect

                return [Part("", [row.toatoms(add_additional_information=True) for row in connect(path).select()])]
            if path.suffix in _OPENERS and path.with_suffix("").suffix in (".extxyz", ".xyz"):
                # ASE's reader goes back and forth, and each step back in a compressed file decompresses it anew.
                with _OPENERS[path.suffix](path, "rt") as file:
                    text = file.read()
                refuse_endless(text.splitlines())
                return [Part("", list(iread(StringIO(text), ":", format="extxyz")))]
            if path.suffix in (".extxyz", ".xyz"):
                refuse_endless_file(path)
            return [Part("", list(iread(path, ":")))]
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001  readers raise whatever their parser trips over
        raise DataError(f"cannot be read as structures: {str(error) or type(error).__name__}", where=str(path)) from None


def _is_cp2k(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(20_000)
    return b"CP2K| version string" in start


def _cp2k(path: Path) -> list[Atoms]:
    images = _atoms(_dpdata(path).LabeledSystem(str(path), fmt="cp2k/output").data)
    # dpdata knows the stress of CP2K up to version 7 only. CP2K's is positive under pressure.
    found = _CP2K_STRESS.search(path.read_text(encoding="utf-8", errors="replace"))
    if len(images) == 1 and found is not None:
        tensor = np.array([line.split()[2:] for line in found[2].splitlines()], dtype=float)
        images[0].calc.results["stress"] = voigt(-_CP2K_UNITS[found[1]] * tensor)
    return images


def _folder(path: Path) -> list[Part]:
    if systems := sorted(file.parent for file in path.rglob("type.raw")):
        names = ["" if system == path else system.relative_to(path).as_posix() for system in systems]
        return [Part(name, _atoms(data)) for name, system in zip(names, systems, strict=True) for data in _deepmd(system)]
    raise DataError("the folder holds no DeePMD set (no type.raw)", where=str(path), fix="give the files in it themselves")


def _deepmd(folder: Path) -> list[dict[str, Any]]:
    """The systems of one DeePMD folder: one, or in a mixed set one for each composition."""
    dpdata = _dpdata(folder)
    if not (folder / "type_map.raw").exists():
        raise DataError(
            "the set does not say which elements its types are", where=str(folder), fix="add type_map.raw: one symbol a line"
        )
    if any(folder.glob("set.*/real_atom_types.npy")):
        return [system.data for system in dpdata.MultiSystems.from_file(str(folder), fmt="deepmd/npy/mixed")]
    fmt = "deepmd/npy" if any(folder.glob("set.*")) else "deepmd/raw"
    return [dpdata.LabeledSystem(str(folder), fmt=fmt).data]


def _dpdata(path: Path) -> ModuleType:
    try:
        import dpdata
    except ImportError:
        raise DataError(
            "DeePMD sets and CP2K outputs are read with dpdata, which is not installed",
            where=str(path),
            fix='pip install "al-leignn[dpdata]"',
        ) from None
    return dpdata


def _atoms(data: dict[str, Any]) -> list[Atoms]:
    """Arrays of dpdata (eV, Å, eV/Å; virial in eV, positive under pressure) as frames with results."""
    symbols = [data["atom_names"][kind] for kind in data["atom_types"]]
    images = []
    for n, positions in enumerate(data["coords"]):
        periodic = not data.get("nopbc", False)
        atoms = Atoms(symbols, positions, cell=data["cells"][n] if periodic else None, pbc=periodic)
        results = {"energy": float(data["energies"][n]), "forces": data["forces"][n]}
        if periodic and "virials" in data:
            results["stress"] = voigt(-data["virials"][n] / atoms.get_volume())
        atoms.calc = SinglePointCalculator(atoms, **results)
        images.append(atoms)
    return images
