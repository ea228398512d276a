"""First cut of the pool: what the committee says of each frame."""

import numpy as np
from numpy.typing import NDArray

from al_leignn.core import Verdict
from al_leignn.shapes import Float


def classify(max_deviation: Float[np.ndarray, " n"], lo: float, hi: float) -> NDArray[np.object_]:
    """Verdict of each frame: accurate < lo <= candidate < hi <= failed; NaN is failed. Always a partition.

    Parameters
    ----------
    max_deviation
        Model deviation of each frame, eV/Å.
    lo, hi
        Trust levels, eV/Å.

    Raises
    ------
    ValueError
        Unless lo < hi.
    """
    if not lo < hi:
        raise ValueError(f"trust levels must rise: lo = {lo}, hi = {hi}")
    return np.array([_verdict(value, lo, hi) for value in max_deviation], dtype=object)


def _verdict(value: float, lo: float, hi: float) -> Verdict:
    if value < lo:
        return Verdict.ACCURATE
    return Verdict.CANDIDATE if value < hi else Verdict.FAILED
