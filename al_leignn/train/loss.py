"""The training loss: what counts as a large error in energy, forces and stress, and how the three are weighed.

Every error is divided by a unit that follows from the data alone, so weights near 1 suit any material and any
cell size: forces by the rms force component f of the training set, energies per atom by f · ENERGY_LENGTH and
stress by f · STRESS_DENSITY. Each term is a pseudo-Huber function of the Euclidean length of the error
(one atom's force vector, one frame's energy, one frame's stress tensor), hence invariant under rotation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from al_leignn.config import TrainConfig
from al_leignn.model.leignn import Output
from al_leignn.shapes import Float
from al_leignn.train.batches import Batch

ENERGY_LENGTH = 0.05
"""Å. Energy errors in units of the work of a typical force over a thermal displacement."""

STRESS_DENSITY = 0.02
"""1/Å^2. Stress errors in units of a typical force on the area of some atoms."""

HUBER_WIDTH = 0.01
"""Errors below this many units count squared, those above linearly, as the mean absolute error does."""

ENERGY_RISE = 10.0
"""Factor on the energy weight at the end of a fit, reached linearly over its last `RISE_SHARE`."""

RISE_SHARE = 0.3


@dataclass(frozen=True)
class Weights:
    """Weights of the three terms at one step of the fit."""

    energy: float
    force: float
    stress: float

    @classmethod
    def at(cls, progress: float, config: TrainConfig) -> "Weights":
        """Weights when `progress` (0 to 1) of the steps are done: forces lead first, energies gain at the end."""
        risen = max(0.0, (progress - 1.0 + RISE_SHARE) / RISE_SHARE)
        energy = config.energy_weight * (1.0 + (ENERGY_RISE - 1.0) * risen)
        return cls(energy=energy, force=config.force_weight, stress=config.stress_weight)


@dataclass(frozen=True)
class Units:
    """One unit of error in each quantity: eV/atom, eV/Å (per component) and eV/Å^3."""

    energy: float
    force: float
    stress: float

    @classmethod
    def of(cls, force: float) -> "Units":
        """Units of a data set whose rms force component is `force` (eV/Å)."""
        return cls(energy=force * ENERGY_LENGTH, force=force, stress=force * STRESS_DENSITY)


@dataclass(frozen=True)
class Tally:
    """Means under way over any number of batches. Rows: sum and count; columns: loss, and absolute errors of energy
    per atom, force components and stress components.
    """

    values: Float[Tensor, "2 4"]

    @classmethod
    def empty(cls) -> "Tally":
        return cls(torch.zeros(2, 4, dtype=torch.float64))

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.values + other.values.to(self.values))

    def means(self) -> dict[str, float]:
        """loss, energy_mae (eV/atom), force_mae (eV/Å), stress_mae (eV/Å^3); without those that were never counted."""
        names = ("loss", "energy_mae", "force_mae", "stress_mae")
        sums, counts = self.values.tolist()
        return {name: total / n for name, total, n in zip(names, sums, counts, strict=True) if n}


def measure(out: Output, batch: Batch, units: Units, weights: Weights) -> tuple[Float[Tensor, ""], Tally]:
    """Loss of one batch (dimensionless, differentiable) and the absolute errors it comes from.

    Parameters
    ----------
    out
        Prediction with forces, and with stress where `batch.any_stress`.
    """
    if out.forces is None:
        raise ValueError("the loss needs forces")
    energy = (out.energy - batch.energy) / batch.n_atoms
    forces = out.forces - batch.forces
    loss = weights.energy * _pseudo_huber((energy / units.energy).square()).mean()
    loss = loss + weights.force * _pseudo_huber((forces / units.force).square().sum(dim=1)).mean()
    sums = [energy.detach().abs().sum(), forces.detach().abs().sum(), torch.zeros_like(loss)]
    counts = [1, energy.numel(), forces.numel(), 0]
    if batch.any_stress and out.stress is not None:
        stress = (out.stress - batch.stress)[batch.has_stress]
        loss = loss + weights.stress * _pseudo_huber((stress / units.stress).square().sum(dim=(1, 2))).mean()
        row, column = torch.triu_indices(3, 3)
        sums[2] = stress.detach()[:, row, column].abs().sum()
        counts[3] = 6 * len(stress)
    total = torch.stack([loss.detach(), *sums]).double()
    return loss, Tally(torch.stack([total, torch.tensor(counts, dtype=total.dtype, device=total.device)]))


def _pseudo_huber(square: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """sqrt(e^2 + w^2) - w of errors given by their squares: quadratic within the width w, of slope 1 beyond."""
    return (square + HUBER_WIDTH**2).sqrt() - HUBER_WIDTH
