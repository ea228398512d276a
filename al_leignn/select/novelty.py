"""Novelty: how unlike anything trained on a frame is. It knows nothing of the committee, so it can contradict it.

Members trained on the same frames may agree with one another and be wrong together. The distance of an atom's environment to
the nearest environment of the training set (`diversity.environments`) does not depend on what the members say.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from al_leignn.core import Frame
from al_leignn.select.diversity import environments
from al_leignn.shapes import Float

MOST_ENVIRONMENTS = 2000
"""Training environments of one element that are compared with; of more, evenly picked ones."""

MOST_FRAMES = 60
"""Training frames, evenly picked, from which the usual distance is taken."""

DIGITS = 6
"""Decimals of the answer: the last bits of a matrix product depend on the number of threads, and no choice may."""

USUAL = 0.9
"""Share of the training frames that are less novel than 1 to the rest of the training set."""


def novelty(frames: Sequence[Frame], training: Sequence[Frame]) -> Float[np.ndarray, " n"]:
    """Distance of each frame to the training set, in units of the training set's own spread.

    The distance of a frame is that of its strangest atom to the nearest training environment of the same element: a local
    fault in a large cell is seen. The unit is the 90 % quantile of the same distance for training frames, each against the
    trajectory blocks it is not of. Above 1, a frame is stranger to the training set than nine in ten of its own frames.
    Infinite where an element was never trained on; 0 without any training frames, when there is nothing to compare with.

    Parameters
    ----------
    frames
        With finite coordinates.
    """
    if not training:
        return np.zeros(len(frames))
    known = _Known(training, sorted({int(z) for frame in (*frames, *training) for z in frame.atoms.numbers}))
    usual = known.usual_distance()
    distances = np.array([known.distance(frame) for frame in frames])
    found = distances / usual if usual > 0 else np.where(distances > 0, np.inf, 0.0)
    return np.round(found, DIGITS)


class _Known:
    """Environments of the training set by element, each with the group of frames it comes from."""

    def __init__(self, training: Sequence[Frame], species: list[int]) -> None:
        blocks = [frame.origin.block for frame in training]
        # A single trajectory is all there is to compare with; its frames then stand for themselves.
        self.groups = blocks if len(set(blocks)) > 1 else [frame.uid for frame in training]
        self.training = training
        self.species = species
        points = np.concatenate([environments(frame, species) for frame in training])
        numbers = np.concatenate([frame.atoms.numbers for frame in training])
        group = np.repeat(self.groups, [len(frame.atoms) for frame in training])
        self.of_element: dict[int, tuple[Float[np.ndarray, "n d"], NDArray[np.str_]]] = {}
        for z in species:
            mine = np.flatnonzero(numbers == z)
            mine = mine[:: max(-(-len(mine) // MOST_ENVIRONMENTS), 1)]
            self.of_element[z] = points[mine], group[mine]

    def distance(self, frame: Frame, without: str = "") -> float:
        """Of the strangest atom to the nearest environment of its element, group `without` left out."""
        mine = environments(frame, self.species)
        largest = 0.0
        for z in set(frame.atoms.numbers.tolist()):
            points, group = self.of_element[z]
            points = points[group != without] if without else points
            if len(points) == 0:
                return np.inf
            largest = max(largest, float(_nearest(mine[frame.atoms.numbers == z], points).max()))
        return largest

    def usual_distance(self) -> float:
        every = max(-(-len(self.training) // MOST_FRAMES), 1)
        pairs = list(zip(self.training, self.groups, strict=True))[::every]
        distances = np.array([self.distance(frame, without=group) for frame, group in pairs])
        finite = distances[np.isfinite(distances)]
        return float(np.quantile(finite, USUAL)) if len(finite) else 0.0


def _nearest(points: Float[np.ndarray, "n d"], known: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " n"]:
    """Euclidean distance of each point to the nearest known one; as a matrix product, several times as fast as one by one."""
    squares = (points**2).sum(axis=1)[:, None] + (known**2).sum(axis=1) - 2.0 * points @ known.T
    return np.asarray(np.sqrt(np.maximum(squares.min(axis=1), 0.0)))
