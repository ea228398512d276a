"""Four rules that choose k frames of a pool to label: the package's own, DP-GEN's, farthest points, and chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from al_leignn.calibration import Calibration, trust_levels
from al_leignn.config import SelectConfig
from al_leignn.core import Frame
from al_leignn.select.budget import select_frames
from al_leignn.select.diversity import descriptors, farthest_points

RULES = ("own", "dp-gen", "farthest", "random")

WINDOW = (0.5, 0.95)
"""DP-GEN's fixed trust levels are these quantiles of the first committee's deviations: a window that a user who knows the
system would choose."""


@dataclass(frozen=True)
class Judged:
    """A pool as the present committee sees it."""

    frames: Sequence[Frame]
    deviations: np.ndarray
    """Model deviations, eV/Å."""
    training: Sequence[Frame]
    calibration: Calibration
    """From frames held back, the same for all rules."""


def choose(rule: str, pool: Judged, k: int, rng: np.random.Generator, *, target: float, window: tuple[float, float]) -> list[int]:
    """Indices of at most k frames of the pool.

    Parameters
    ----------
    target
        Wanted force MAE, eV/Å: what the own rule derives its trust levels from.
    window
        DP-GEN's trust levels, eV/Å.
    """
    n = len(pool.frames)
    match rule:
        case "own":
            # One fresh label is the least that a campaign may ask for; here errors are measured elsewhere.
            config = SelectConfig(budget=k, fresh=1, cost_exponent=0.0)
            lo, hi = trust_levels(pool.calibration, config, target)
            found = select_frames(
                pool.frames, pool.deviations, config, lo, hi, rng, training=pool.training, known_uids=set(), budget_left=k + 1
            )
            return found.train
        case "dp-gen":
            inside = np.flatnonzero((pool.deviations >= window[0]) & (pool.deviations < window[1]))
            return [int(i) for i in rng.permutation(inside)[:k]]
        case "farthest":
            species = sorted({int(z) for frame in (*pool.frames, *pool.training) for z in frame.atoms.numbers})
            known = descriptors(pool.training, species)
            return farthest_points(descriptors(pool.frames, species), known, np.ones(n), k)
        case _:
            return [int(i) for i in rng.permutation(n)[:k]]
