"""What a campaign will cost, before it is started: rough, with its assumptions on the table."""

import math
from dataclasses import dataclass

from ase import Atoms

from al_leignn.config import CampaignConfig, Cp2kConfig, KpointsSection
from al_leignn.label.kpoints import grid_of
from al_leignn.train.schedule import planned_steps

EXPECTED_ITERATIONS = 3
"""Small crystals converge in two or three iterations; liquids and alloys take more."""

# One label of 8 silicon atoms (32 valence electrons) with 300 eV plane waves took GPAW 0.9 core-seconds per k-point; CP2K, whose
# cost depends little on the cutoff, about 10. Quantum ESPRESSO and VASP are taken to be like GPAW.
ANCHORS_S_PER_KPOINT = {"gpaw": 0.9, "quantum-espresso": 0.9, "vasp": 0.9, "cp2k": 10.0}
ANCHOR_ELECTRONS = 32
ANCHOR_ECUT = 300.0
VALENCE_PER_ATOM = 4.0
"""Average over the periodic table of valence electrons in common pseudopotentials."""

START_S = 3.0
"""Core-seconds until a code has started and read its data sets."""

BASE_MEMORY = 0.25e9
"""Bytes of a process before it has computed anything."""

HBAR2_2M = 3.81
"""ħ²/2m of the electron, eV Å²."""

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
    label_memory_gb: float
    """Memory of one label; all workers label at once."""

    def lines(self) -> list[str]:
        return [
            f"labels            about {self.labels}, at {_seconds(self.label_s)} of one core each",
            *(
                [f"memory            about {self.label_memory_gb:.1g} GB for each label at a time"]
                if self.label_memory_gb
                else []
            ),
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
    label_s = sum(label_seconds(config, atoms) for atoms in cells) / len(cells)
    sizes = [len(cells[n % len(cells)]) for n in range(labels)]
    steps = sum(planned_steps(config.train, sizes, warm=warm) for warm in [False] + iterations * [True])
    train_s = config.train.members * steps * TRAIN_S_PER_STEP * config.train.batch_atoms / 64
    wall = (labels * label_s + train_s) / workers
    memory = max(label_memory(config, atoms) for atoms in cells) / 1e9
    return Estimate(labels, label_s, labels * label_s / 3600, train_s / 3600, wall / 3600, memory)


def label_seconds(config: CampaignConfig, atoms: Atoms) -> float:
    """Core-seconds of a label. Plane-wave cost: electrons squared, cutoff to the power 3/2, k-points up to time reversal."""
    labeller = config.labeller
    if not isinstance(labeller, KpointsSection):
        return CHEAP_LABEL_S
    electrons = VALENCE_PER_ATOM * len(atoms)
    kpoints = (math.prod(grid_of(labeller, atoms)) + 1) / 2
    scale = (electrons / ANCHOR_ELECTRONS) ** 2
    if not isinstance(labeller, Cp2kConfig):
        scale *= (_cutoff(labeller) / ANCHOR_ECUT) ** 1.5
    anchor = ANCHORS_S_PER_KPOINT[labeller.model_dump()["type"]]
    return float(START_S + anchor * kpoints * scale * (2 if labeller.model_dump()["spin"] else 1))


def label_memory(config: CampaignConfig, atoms: Atoms) -> float:
    """Bytes that a plane-wave label needs: coefficients of all bands at all k-points, and as much again to work with."""
    labeller = config.labeller
    if not isinstance(labeller, KpointsSection):
        return 0.0
    waves = float(atoms.cell.volume) * (_cutoff(labeller) / HBAR2_2M) ** 1.5 / (6 * math.pi**2)
    bands = 0.6 * VALENCE_PER_ATOM * len(atoms) + 4
    kpoints = (math.prod(grid_of(labeller, atoms)) + 1) / 2 * (2 if labeller.model_dump()["spin"] else 1)
    return float(BASE_MEMORY + 2 * 16 * waves * bands * kpoints)


def _cutoff(labeller: KpointsSection) -> float:
    """Plane-wave cutoff of the wavefunctions, eV; what comes near it where there is none."""
    values = labeller.model_dump()
    if "ecut" in values and values.get("mode", "pw") == "pw":
        return float(values["ecut"])
    return 400.0
