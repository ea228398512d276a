"""What became of each frame of a pool, and the selection as a whole."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from al_leignn.core import Verdict
from al_leignn.shapes import Float


class Fate(StrEnum):
    """What became of a frame of the pool."""

    TRAIN = "train"
    RESCUED = "train, failed"
    """Failed but sane, labelled for training because there were too few candidates."""
    NOVEL = "train, novel"
    """Accurate, labelled for training because it is unlike the training set."""
    FRESH = "fresh"
    SURPLUS = "surplus"
    """Worth a label, but the budget was spent on others."""
    CORRELATED = "correlated"
    """Candidate too close in time to a chosen frame of its walker."""
    ACCURATE = "accurate"
    FAILED = "failed"
    UNPHYSICAL = "unphysical"
    DUPLICATE = "duplicate"
    KNOWN = "already labelled"
    UNPREDICTED = "no finite prediction"


NOVEL = 1.0
"""Novelty from which a frame counts as unlike the training set."""

TRAINED = (Fate.TRAIN, Fate.RESCUED, Fate.NOVEL)


@dataclass(frozen=True)
class Selection:
    """The answer for one pool, frame by frame in the order of the pool."""

    fates: tuple[Fate, ...]
    verdicts: tuple[Verdict, ...] = ()
    """Empty for seeds, which no committee has seen."""
    trust_lo: float | None = None
    trust_hi: float | None = None
    novelty: Float[np.ndarray, " n"] | None = None
    """Distance to the training set (`novelty.novelty`); NaN for frames that were set aside. None for seeds."""

    @property
    def train(self) -> list[int]:
        """Indices of the frames to label for training."""
        return [i for i, fate in enumerate(self.fates) if fate in TRAINED]

    @property
    def fresh(self) -> list[int]:
        """Indices of the frames to label for measuring the error; a random sample of the sane frames."""
        return [i for i, fate in enumerate(self.fates) if fate is Fate.FRESH]

    @property
    def counts(self) -> dict[str, int]:
        """Frames per fate, all fates listed; the sum is the size of the pool."""
        found = Counter(self.fates)
        return {str(fate): found[fate] for fate in Fate}

    @property
    def verdict_counts(self) -> dict[str, int]:
        """Frames per verdict, before any filter; for an iteration with a committee the sum is the size of the pool."""
        found = Counter(self.verdicts)
        return {str(verdict): found[verdict] for verdict in Verdict}

    @property
    def disagreements(self) -> dict[str, int]:
        """Frames of which committee and novelty say different things; both 0 for seeds."""
        if self.novelty is None:
            return {"accurate but novel": 0, "uncertain but familiar": 0}
        sure = np.array([verdict is Verdict.ACCURATE for verdict in self.verdicts], dtype=bool)
        return {
            "accurate but novel": int((sure & (self.novelty >= NOVEL)).sum()),
            "uncertain but familiar": int((~sure & (self.novelty < NOVEL)).sum()),
        }
