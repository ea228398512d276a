"""Averages that are known whatever the potential: what two simulations differ in there is chance, and so is what goes with it.

For a smooth field B of displacements that depends on distances between atoms only, integration by parts over the canonical
distribution gives the hypervirial theorem (Hirschfelder, J. Chem. Phys. 33, 1462 (1960))

    < Σᵢ Bᵢ·Fᵢ + kT Σᵢ ∇ᵢ·Bᵢ > = 0,

F the forces that move the atoms. With Bᵢ = Σⱼ w(rᵢⱼ) uᵢⱼ, u pointing from j to i, the second sum is kT Σᵢⱼ (w' + 2 w/r). Numbers
of known mean like these lower the noise of other averages (Assaraf and Caffarel, Phys. Rev. Lett. 83, 4682 (1999); for pair
functions Borgis et al., Mol. Phys. 111, 3486 (2013)).
"""

from typing import NamedTuple

import numpy as np

from al_leignn.geometry import neighbour_vectors
from al_leignn.shapes import Float
from al_leignn.units import KB
from al_leignn.validate.statistics import Blocks
from al_leignn.validate.trajectory import Trajectory

CUTOFF = 6.0
"""Å."""

FUNCTIONS = 4
"""w_k(r) = (1 - d²)³ cos(kπd), d = r/cutoff. Four leave 7 % of the noise of silicon's mean energy (Tersoff), eight 3 %."""

SAMPLES = 3_000
"""At most so many frames are looked at, evenly spread."""


class Hypervirials(NamedTuple):
    """Both sums, per atom, for each function, over all of a trajectory."""

    work: Float[np.ndarray, "samples functions"]
    """Σᵢ Bᵢ·Fᵢ, eV."""
    spread: Float[np.ndarray, "samples functions"]
    """Σᵢ ∇ᵢ·Bᵢ."""

    def at(self, temperature: float) -> Float[np.ndarray, "samples functions"]:
        """Their sum at `temperature` (K), eV: zero on average if it is that of the trajectory."""
        return self.work + KB * temperature * self.spread


def looked_at(trajectory: Trajectory) -> range:
    """Frames whose hypervirials are taken: all, if there are no more than `SAMPLES`."""
    return range(0, len(trajectory), -(-len(trajectory) // SAMPLES))


def hypervirials(trajectory: Trajectory) -> Hypervirials | None:
    """None where a trajectory has no forces, or not those that moved the atoms."""
    if trajectory.forces is None or not trajectory.driven:
        return None
    frames = looked_at(trajectory)
    found = Hypervirials(np.empty((len(frames), FUNCTIONS)), np.empty((len(frames), FUNCTIONS)))
    orders = np.pi * np.arange(FUNCTIONS)[:, None]
    for row, n in enumerate(frames):
        first, second, vectors = neighbour_vectors(trajectory.frame(n), CUTOFF)
        r = np.linalg.norm(vectors, axis=1)
        d = r / CUTOFF
        envelope, slope, waves = (1 - d**2) ** 3, -6 * d * (1 - d**2) ** 2, np.cos(orders * d)
        w = envelope * waves
        dw = (slope * waves - envelope * orders * np.sin(orders * d)) / CUTOFF
        found.work[row] = -w @ (np.einsum("px,px->p", vectors, trajectory.forces[n][first]) / r)
        # An atom and its own image keep their distance: their field does not vary.
        found.spread[row] = np.where(first != second, dw + 2 * w / r, 0.0).sum(axis=1)
    return Hypervirials(found.work / len(trajectory.numbers), found.spread / len(trajectory.numbers))


def configurational_temperature(found: Hypervirials) -> tuple[float, float] | None:
    """Temperature (K) that positions and forces tell without velocities, and its standard error.

    That at which a hypervirial vanishes on average, by the function that tells it best (Jepps, Ayton and Evans, Phys. Rev. E 62,
    4757 (2000)). None where there is too little data for an error.
    """
    told = []
    for work, spread in zip(found.work.T, found.spread.T, strict=True):
        mean = KB * float(spread.mean())
        if mean == 0.0:  # a single atom
            return None
        temperature = -float(work.mean()) / mean
        blocks = Blocks.of((work + KB * temperature * spread)[:, None])
        if not blocks.enough:
            return None
        told.append((float(blocks.error()[0]) / abs(mean), temperature))
    error, temperature = min(told)
    return temperature, error
