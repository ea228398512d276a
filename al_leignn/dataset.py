"""The growing labelled set. Each iteration adds one block of files; nothing already there is rewritten.

A frame is either trained on or kept fresh, decided before it is labelled and never changed. Fresh frames are a
random sample of what was explored; they measure errors and calibrate uncertainties.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from al_leignn.core import Frame, LabelledFrame, Labels, Origin, Purpose
from al_leignn.errors import DataError
from al_leignn.store import read_labelled, write_frames
from al_leignn.units import voigt

FILES = {Purpose.TRAIN: "train.extxyz", Purpose.FRESH: "fresh.extxyz"}


@dataclass(frozen=True)
class Dataset:
    train: tuple[LabelledFrame, ...]
    fresh: tuple[LabelledFrame, ...]

    @property
    def uids(self) -> frozenset[str]:
        return frozenset(item.frame.uid for item in (*self.train, *self.fresh))

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(sorted({int(z) for item in (*self.train, *self.fresh) for z in item.frame.atoms.numbers}))


def load_dataset(folders: Sequence[Path]) -> Dataset:
    """Join the blocks that iterations have collected, in order."""
    parts = {purpose: [item for folder in folders for item in read_labelled(folder / name)] for purpose, name in FILES.items()}
    return Dataset(tuple(parts[Purpose.TRAIN]), tuple(parts[Purpose.FRESH]))


def write_block(
    folder: Path, train: Sequence[LabelledFrame], fresh: Sequence[LabelledFrame], known: Iterable[str]
) -> dict[str, int]:
    """Write one iteration's block; frames already known or given twice are left out. Returns the counts.

    Raises
    ------
    DataError
        If one frame is to be trained on and kept fresh at the same time.
    """
    both = {i.frame.uid for i in train} & {i.frame.uid for i in fresh}
    if both:
        raise DataError(f"{len(both)} frame(s) would be trained on and used as a test", where=", ".join(sorted(both)[:5]))
    seen = set(known)
    counts = {"duplicates": 0}
    for purpose, items in ((Purpose.TRAIN, train), (Purpose.FRESH, fresh)):
        kept = []
        for item in items:
            if item.frame.uid in seen:
                counts["duplicates"] += 1
                continue
            seen.add(item.frame.uid)
            kept.append(item)
        write_frames(folder / FILES[purpose], kept)
        counts[purpose.value] = len(kept)
    return counts


# --- labelled frames that users already have -------------------------------------------------------------

BLOCKS_PER_FILE = 20
FRESH_SHARE = 0.1


class DataKeys(NamedTuple):
    """Names of the labels in the user's files."""

    energy: str = "REF_energy"
    forces: str = "REF_forces"
    stress: str = "REF_stress"


def read_user_data(path: Path, level: str, keys: DataKeys = DataKeys()) -> list[LabelledFrame]:  # noqa: B008  immutable
    """Read labelled frames from any file ASE reads (extended XYZ, .xz/.gz, VASP, ASE databases).

    Labels come from the given keys; where a frame has none of them, from the results stored with it
    (`energy`, `forces`, `stress`). Neighbouring frames of a file share a trajectory block. `level` is the level of
    theory that the user says they have.

    Raises
    ------
    DataError
        If the file cannot be read, is empty, or a frame lacks energy or forces.
    """
    from ase.io import read

    try:
        images = read(path, ":")
    except FileNotFoundError:
        raise DataError("there is no such file", where=str(path)) from None
    except Exception as error:  # noqa: BLE001  ASE's readers raise whatever their parser trips over
        raise DataError(f"cannot be read as structures: {str(error) or type(error).__name__}", where=str(path)) from None
    if not images:
        raise DataError("the file holds no frames", where=str(path))
    size = -(-len(images) // BLOCKS_PER_FILE)
    frames = []
    for n, atoms in enumerate(images):
        origin = Origin(kind=f"data:{path.name}", walker=n // size, step=n % size)
        labels = _user_labels(atoms, keys, f"{path}, frame {n}")
        frames.append(LabelledFrame(Frame.of(atoms, origin), labels, level))
    return frames


def _user_labels(atoms: Atoms, keys: DataKeys, where: str) -> Labels:
    stored = {} if atoms.calc is None else atoms.calc.results
    energy = atoms.info.get(keys.energy, stored.get("energy", atoms.info.get("energy")))
    forces = atoms.arrays.get(keys.forces, stored.get("forces", atoms.arrays.get("forces")))
    stress = atoms.info.get(keys.stress, stored.get("stress", atoms.info.get("stress")))
    if energy is None or forces is None:
        missing = [name for name, value in (("energy", energy), ("forces", forces)) if value is None]
        raise DataError(
            f"no {' and no '.join(missing)} (looked for {keys.energy}, {keys.forces}, and stored energy and forces)",
            where=where,
            fix="name the keys of your file, or remove unlabelled frames",
        )
    try:
        return Labels(
            energy=float(energy),
            forces=np.asarray(forces, dtype=float).reshape(len(atoms), 3),
            stress=None if stress is None else _six(np.asarray(stress, dtype=float)),
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"labels cannot be read: {error}", where=where) from None


def _six(stress: np.ndarray) -> np.ndarray:
    """A stress given as 6 (Voigt), 9 or 3x3 numbers, as 6."""
    return stress.reshape(6) if stress.size == 6 else voigt(stress.reshape(3, 3))


def fresh_share(items: Sequence[LabelledFrame], rng: np.random.Generator) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Split into (train, fresh): about a tenth of the trajectory blocks, drawn at random, is never trained on."""
    blocks = sorted({item.frame.origin.block for item in items})
    if len(blocks) < 2:
        return list(items), []
    count = max(1, round(FRESH_SHARE * len(blocks)))
    chosen = {blocks[n] for n in rng.choice(len(blocks), size=count, replace=False)}
    return [i for i in items if i.frame.origin.block not in chosen], [i for i in items if i.frame.origin.block in chosen]
