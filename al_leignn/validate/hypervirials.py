"""Averages that are known whatever the potential: what two simulations differ in there is chance, and so is what goes with it.

For a smooth field B of displacements that depends on distances between atoms only, integration by parts over the canonical
distribution gives the hypervirial theorem (Hirschfelder, J. Chem. Phys. 33, 1462 (1960))

    < Σᵢ Bᵢ·Fᵢ + kT Σᵢ ∇ᵢ·Bᵢ > = 0,

F the forces that move the atoms. With Bᵢ = Σⱼ w(rᵢⱼ) uᵢⱼ, u pointing from j to i, the second sum is kT Σᵢⱼ (w' + 2 w/r). Numbers
of known mean like these lower the noise of other averages (Assaraf and Caffarel, Phys. Rev. Lett. 83, 4682 (1999); for pair
functions Borgis et al., Mol. Phys. 111, 3486 (2013)).
"""

import numpy as np

from al_leignn.geometry import neighbour_vectors
from al_leignn.shapes import Float
from al_leignn.units import KB
from al_leignn.validate.trajectory import Trajectory

CUTOFF = 6.0
"""Å."""

FUNCTIONS = 4
"""w_k(r) = (1 - d²)³ cos(kπd), d = r/cutoff. Four leave 7 % of the noise of silicon's mean energy (Tersoff), eight 3 %."""

SAMPLES = 3_000
"""At most so many frames are looked at, evenly spread."""


def looked_at(trajectory: Trajectory) -> range:
    """Frames whose hypervirials are taken: all, if there are no more than `SAMPLES`."""
    return range(0, len(trajectory), -(-len(trajectory) // SAMPLES))


def hypervirials(trajectory: Trajectory, temperature: float) -> Float[np.ndarray, "samples functions"]:
    """Σᵢ Bᵢ·Fᵢ + kT Σᵢ ∇ᵢ·Bᵢ for each of the functions, eV per atom, at `temperature` (K); zero on average.

    The trajectory must have forces, and those that moved the atoms (`Trajectory.driven`).
    """
    assert trajectory.forces is not None
    frames = looked_at(trajectory)
    found = np.empty((len(frames), FUNCTIONS))
    orders = np.pi * np.arange(FUNCTIONS)
    for row, n in enumerate(frames):
        first, second, vectors = neighbour_vectors(trajectory.frame(n), CUTOFF)
        r = np.linalg.norm(vectors, axis=1)
        along = -np.einsum("px,px->p", vectors, trajectory.forces[n][first]) / r
        d = r / CUTOFF
        envelope, slope = (1 - d**2) ** 3, -6 * d * (1 - d**2) ** 2
        waves = np.cos(np.outer(orders, d))
        w = envelope * waves
        dw = (slope * waves - envelope * orders[:, None] * np.sin(np.outer(orders, d))) / CUTOFF
        # An atom and its own image keep their distance: their field does not vary.
        spread = np.where(first != second, dw + 2 * w / r, 0.0)
        found[row] = (w @ along + KB * temperature * spread.sum(axis=1)) / len(trajectory.numbers)
    return found
