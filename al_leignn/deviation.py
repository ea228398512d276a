"""Model deviation: the one definition of how much the members of a committee disagree about a frame."""

import numpy as np
from jaxtyping import Float

from al_leignn.core import CommitteePrediction, Deviation


def deviation(prediction: CommitteePrediction) -> Deviation:
    """Disagreement of the members on one frame, in double precision.

    Atom i with member forces F_k and their mean F gets ``sqrt(mean_k |F_k - F|^2)``, eV/Å: the norm of the population
    standard deviation (ddof 0) of its force vector, as in DP-GEN (Zhang et al., Comput. Phys. Commun. 253, 107206,
    2020). The standard deviation of the energy is per atom, eV/atom. NaN or infinity in any member makes the result NaN.
    """
    forces = np.asarray(prediction.forces, dtype=np.float64)
    energy = np.asarray(prediction.energy, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return Deviation(
            per_atom=np.sqrt(forces.var(axis=0).sum(axis=-1)),
            energy=float(energy.std()) / forces.shape[1],
            mean_force=np.linalg.norm(forces.mean(axis=0), axis=-1),
        )


def relative(
    values: Float[np.ndarray, " n"], mean_force: Float[np.ndarray, " n"], force_scale: float | None
) -> Float[np.ndarray, " n"]:
    """Deviations or errors of forces under the relative criterion, eV/Å: ``value / (1 + F / force_scale)``.

    An atom that feels a force of `force_scale` may be off by twice as much as one at rest before it counts the same.
    Without a scale, as given.
    """
    return values if force_scale is None else values / (1.0 + mean_force / force_scale)
