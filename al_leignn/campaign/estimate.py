"""What a campaign will cost, before it is started: rough, with its assumptions on the table."""

from dataclasses import dataclass

from ase import Atoms

from al_leignn.config import CampaignConfig, GpawConfig
from al_leignn.train.schedule import planned_steps

EXPECTED_ITERATIONS = 3
"""Small crystals converge in two or three iterations; liquids and alloys take more."""

# One label of 8 silicon atoms (32 valence electrons) with 300 eV plane waves took 0.9 core-seconds per k-point.
ANCHOR_S_PER_KPOINT = 0.9
ANCHOR_ELECTRONS = 32
ANCHOR_ECUT = 300.0
VALENCE_PER_ATOM = 4.0
"""Average over the periodic table of valence electrons in common pseudopotentials."""

CHEAP_LABEL_S = 0.1
TRAIN_S_PER_STEP = 0.02
"""Core-seconds of one optimiser step of the default network on 64 atoms."""


@dataclass(frozen=True)
class Estimate:
    labels: int
    label_s: float
    """Core-seconds of one label."""
    label_core_hours: float
    train_core_hours: float
    wall_hours: float

    def lines(self) -> list[str]:
        return [
            f"labels            about {self.labels}, at {_seconds(self.label_s)} of one core each",
            f"core-hours        {self.label_core_hours:.2g} for labels, {self.train_core_hours:.2g} for training",
            f"wall time         about {_seconds(self.wall_hours * 3600)}",
        ]


def _seconds(s: float) -> str:
    if s < 90:
        return f"{s:.2g} s"
    return f"{s / 60:.0f} min" if s < 5400 else f"{s / 3600:.1f} h"


def estimate(config: CampaignConfig, cells: list[Atoms], workers: int) -> Estimate:
    """Cost of EXPECTED_ITERATIONS iterations of the campaign with these labelling cells."""
    seeds = config.seeds
    per_structure = 1 + seeds.rattled + seeds.strained + seeds.hot
    iterations = min(EXPECTED_ITERATIONS, config.budget.iterations)
    labels = min(per_structure * len(cells) + iterations * (config.select.budget + config.select.fresh), config.budget.labels)
    label_s = sum(_label_seconds(config, atoms) for atoms in cells) / len(cells)
    sizes = [len(cells[n % len(cells)]) for n in range(labels)]
    steps = sum(planned_steps(config.train, sizes, warm=warm) for warm in [False] + iterations * [True])
    train_s = config.train.members * steps * TRAIN_S_PER_STEP * config.train.batch_atoms / 64
    wall = (labels * label_s + train_s) / workers
    return Estimate(labels, label_s, labels * label_s / 3600, train_s / 3600, wall / 3600)


def _label_seconds(config: CampaignConfig, atoms: Atoms) -> float:
    """Plane-wave cost: electrons squared, cutoff to the power 3/2, k-points up to time reversal."""
    labeller = config.labeller
    if not isinstance(labeller, GpawConfig):
        return CHEAP_LABEL_S
    electrons = VALENCE_PER_ATOM * len(atoms)
    a, b, c = labeller.kpts
    kpoints = (a * b * c + 1) / 2
    scale = (electrons / ANCHOR_ELECTRONS) ** 2 * (labeller.ecut / ANCHOR_ECUT) ** 1.5
    return max(1.0, float(ANCHOR_S_PER_KPOINT * kpoints * scale * (2 if labeller.spin else 1)))
