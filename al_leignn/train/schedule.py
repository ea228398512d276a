"""The course of a fit: how many steps it takes, and the learning rate at each of them."""

import math
from collections.abc import Sequence

from al_leignn.config import TrainConfig

LEAST_STEPS = 2000
"""Steps of a fit from scratch to few frames."""

PASSES = 30
"""Passes over the frames in a fit from scratch to many."""

WARM_SHARE = 1 / 3
"""Steps of a fit that goes on from earlier weights, relative to one from scratch."""

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""

FINAL_RATE = 0.01
"""Learning rate at the end relative to its peak."""


def planned_steps(config: TrainConfig, sizes: Sequence[int], *, warm: bool) -> int:
    """Optimiser steps of a fit to frames of these numbers of atoms; `warm` if it goes on from earlier weights."""
    if warm and config.warm_steps != "auto":
        return config.warm_steps
    # Frames per batch as they come out on average: a batch ends with the frame that reaches the mark.
    frames_per_batch = max(1, math.ceil(config.batch_atoms * len(sizes) / max(1, sum(sizes))))
    passes = math.ceil(PASSES * len(sizes) / frames_per_batch)
    steps = max(LEAST_STEPS, passes) if config.steps == "auto" else config.steps
    return max(1, round(WARM_SHARE * steps)) if warm else steps


def rate_factor(step: int, steps: int) -> float:
    """Learning rate at a step relative to its peak: linear rise, then half a cosine down to `FINAL_RATE`."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    fall = (step - rise) / max(1, steps - rise)
    return FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * fall))
