"""The growing labelled set. Each iteration adds one block of files; nothing already there is rewritten.

A frame is either trained on or kept fresh, decided before it is labelled and never changed. Fresh frames are a
random sample of what was explored; they measure errors and calibrate uncertainties.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from al_leignn.core import LabelledFrame, Purpose
from al_leignn.errors import DataError
from al_leignn.store import read_labelled, write_frames

FRESH_SHARE = 0.1
"""Share of the user's own frames that is kept fresh."""

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


def fresh_share(items: Sequence[LabelledFrame], rng: np.random.Generator) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Split into (train, fresh): about a tenth of the trajectory blocks, drawn at random, is never trained on."""
    blocks = sorted({item.frame.origin.block for item in items})
    if len(blocks) < 2:
        return list(items), []
    count = max(1, round(FRESH_SHARE * len(blocks)))
    chosen = {blocks[n] for n in rng.choice(len(blocks), size=count, replace=False)}
    return [i for i in items if i.frame.origin.block not in chosen], [i for i in items if i.frame.origin.block in chosen]
