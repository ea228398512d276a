"""When a walker has left the world its potential knows: the reasons to stop it, and their limits.

A walker is stopped at the first step at which one of these holds; what it sampled before is kept.
Numbers only: the MD engine reduces its state to a `Vitals` per step, and nothing here knows how it was obtained.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from al_leignn.shapes import Bool, Float


class StopReason(StrEnum):
    """Why a walker was stopped, in the order in which they are looked at; the empty one means it was not."""

    NONE = ""
    NAN = "nan"
    """Energy, forces or positions are not finite."""
    CONTACT = "contact"
    """Two atoms came too close."""
    TEMPERATURE = "temperature"
    """The kinetic temperature ran away."""
    CELL = "cell"
    """The cell collapsed or blew up."""
    EVAPORATION = "evaporation"
    """An atom lost every neighbour within the potential's cutoff."""
    DEVIATION = "deviation"
    """The committee's force deviation passed trust_hi."""


@dataclass(frozen=True)
class Limits:
    """Where each reason begins."""

    trust_hi: float = np.inf
    """Largest model deviation, eV/Å."""
    force_scale: float | None = None
    """Of the relative criterion (`deviation.relative`), eV/Å; None: deviations count as they are."""
    contact: float = 0.5
    """Smallest distance of two atoms as a share of the sum of their covalent radii. Bonds are near 1; nothing but a broken
    potential brings atoms to half of that at pressures of this world."""
    temperature: float = 5.0
    """Largest kinetic temperature relative to the target, for systems of many atoms (see `hottest`)."""
    volume: float = 1.5
    """Largest factor by which the volume may grow or shrink: well above thermal expansion up to melting."""

    def hottest(self, target: Float[np.ndarray, " walkers"], dof: Float[np.ndarray, " walkers"]) -> Float[np.ndarray, " walkers"]:
        """Kinetic temperature (K) at which a walker with `dof` degrees of freedom is stopped.

        The kinetic temperature of a healthy walker is chi-square distributed with relative standard deviation
        sqrt(2/dof), so a walker of one or two atoms needs more room: twelve standard deviations, which even for a
        single atom is exceeded in fewer than one of a million independent draws.
        """
        return target * np.maximum(self.temperature, 1.0 + 12.0 * np.sqrt(2.0 / dof))


@dataclass(frozen=True)
class Vitals:
    """What is watched, one value for each walker."""

    finite: Bool[np.ndarray, " walkers"]
    """Energy and forces are finite numbers."""
    contact: Float[np.ndarray, " walkers"]
    """Smallest distance over the sum of covalent radii; infinite where no two atoms are neighbours."""
    temperature: Float[np.ndarray, " walkers"]
    """Kinetic temperature, K."""
    volume: Float[np.ndarray, " walkers"]
    """Volume relative to the start."""
    evaporated: Bool[np.ndarray, " walkers"]
    """An atom that had neighbours at the start has none left."""
    deviation: Float[np.ndarray, " walkers"]
    """Model deviation, eV/Å; 0 at steps at which only the driving member was evaluated."""


def stop_reasons(vitals: Vitals, limits: Limits, hottest: Float[np.ndarray, " walkers"]) -> list[StopReason]:
    """The first reason that holds for each walker, `StopReason.NONE` for those that may go on.

    `hottest` is the limit on the kinetic temperature, `Limits.hottest` of each walker. A comparison with NaN is false, so each
    limit is written as the condition that a healthy walker meets.
    """
    healthy = {
        StopReason.NAN: vitals.finite,
        StopReason.CONTACT: vitals.contact >= limits.contact,
        StopReason.TEMPERATURE: vitals.temperature <= hottest,
        StopReason.CELL: (vitals.volume <= limits.volume) & (vitals.volume >= 1.0 / limits.volume),
        StopReason.EVAPORATION: ~vitals.evaporated,
        StopReason.DEVIATION: vitals.deviation <= limits.trust_hi,
    }
    reasons = [StopReason.NONE] * len(vitals.finite)
    if all(ok.all() for ok in healthy.values()):
        return reasons
    for walker in range(len(reasons)):
        reasons[walker] = next((reason for reason, ok in healthy.items() if not ok[walker]), StopReason.NONE)
    return reasons
