"""Model deviation: the one definition of how much the members of a committee disagree about a frame."""

from collections.abc import Sequence

import numpy as np

from al_leignn.core import CommitteePrediction, Deviation
from al_leignn.shapes import Float


def deviation(prediction: CommitteePrediction) -> Deviation:
    """Disagreement of the members on one frame, in double precision.

    Atom i with member forces F_k and their mean F gets ``sqrt(mean_k |F_k - F|^2)``, eV/Å: the norm of the population
    standard deviation (ddof 0) of its force vector, as in DP-GEN (Zhang et al., Comput. Phys. Commun. 253, 107206,
    2020). The standard deviation of the energy is per atom, eV/atom. NaN or infinity in any member makes the result NaN.
    """
    return deviations(prediction.forces, np.asarray(prediction.energy)[:, None], [prediction.forces.shape[1]])[0]


def deviations(
    forces: Float[np.ndarray, "members atoms 3"], energy: Float[np.ndarray, "members frames"], counts: Sequence[int]
) -> list[Deviation]:
    """`deviation` of frames of `counts` atoms each, one after another."""
    forces, energy = np.asarray(forces, dtype=np.float64), np.asarray(energy, dtype=np.float64)
    ends = np.cumsum(counts)[:-1]
    with np.errstate(invalid="ignore"):
        per_atom = np.split(np.sqrt(forces.var(axis=0).sum(axis=-1)), ends)
        mean_force = np.split(np.linalg.norm(forces.mean(axis=0), axis=-1), ends)
        of_energy = energy.std(axis=0) / np.asarray(counts)
    return [Deviation(*found) for found in zip(per_atom, of_energy.tolist(), mean_force, strict=True)]


def relative(
    values: Float[np.ndarray, " n"], mean_force: Float[np.ndarray, " n"], force_scale: float | None
) -> Float[np.ndarray, " n"]:
    """Deviations or errors of forces under the relative criterion, eV/Å: ``value / (1 + F / force_scale)``.

    An atom that feels a force of `force_scale` may be off by twice as much as one at rest before it counts the same.
    Without a scale, as given.
    """
    return values if force_scale is None else values / (1.0 + mean_force / force_scale)
