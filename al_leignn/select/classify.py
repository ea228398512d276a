"""First cut of the pool: what the committee says of each frame."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from al_leignn.core import Verdict


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
    verdicts = np.full(len(max_deviation), Verdict.FAILED, dtype=object)
    verdicts[max_deviation < hi] = Verdict.CANDIDATE
    verdicts[max_deviation < lo] = Verdict.ACCURATE
    return verdicts
