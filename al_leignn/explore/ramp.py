"""Targets that change while a walker runs: a value, or several that are passed through at equal times, linearly in between."""

from collections.abc import Sequence

import numpy as np

Ramp = float | Sequence[float]


def points(ramp: Ramp) -> tuple[float, ...]:
    """The values that are passed through."""
    return tuple(ramp) if isinstance(ramp, Sequence) else (ramp,)


def at(ramp: Ramp, share: float) -> float:
    """The value after a share of all steps, from 0 to 1."""
    values = points(ramp)
    return float(np.interp(share, np.linspace(0.0, 1.0, len(values)), values))


def scaled(ramp: Ramp, factor: float) -> Ramp:
    """The ramp with each value multiplied."""
    return tuple(factor * value for value in points(ramp)) if isinstance(ramp, Sequence) else factor * ramp
