"""What a campaign will cost, before it is started: rough, with its assumptions on the table."""

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from al_leignn.config import CampaignConfig, Cp2kConfig, GpawConfig, KpointsSection
from al_leignn.label.box import in_box
from al_leignn.label.kpoints import grid_of
from al_leignn.train.schedule import planned_steps

EXPECTED_ITERATIONS = 3
"""Small crystals converge in two or three iterations; liquids and alloys take more."""

START_S = 2.0
"""Core-seconds of a label before its SCF: data sets, first density. Codes that start anew for each label take a second more."""

PW_S = 1.4e-4
"""Core-seconds of plane waves for each k-point, band and Å^3 at 300 eV. Quantum ESPRESSO and VASP are taken to be like GPAW."""
PW_ECUT = 300.0
PW_BANDS = 42.0
"""Bands at which making them orthogonal costs as much as all else."""
SPIN_STEPS = 2.0
"""SCF steps of a magnetic system over those of another."""

LCAO_S = 1.15e-5
"""Core-seconds of orbitals for each k-point and Å^3 of pairs of them: spheres times spheres per volume of the cell."""
ORBITALS_PER_ATOM = {"sz": 4, "szp": 9, "dz": 8, "dzp": 13}
REACH = (4.3, 3.4)
"""Radius of an orbital over the covalent radius, and the least one, Å."""

FD_S = 3e-4
"""Core-seconds of bands on a grid for each k-point, band and Å^3 at 0.2 Å."""

GRID_S = 3.5e-3
"""Core-seconds of the density for each Å^3 at 0.2 Å, where it has a grid of its own to be computed on."""
GRID_SPACING = 0.2

CP2K_S = 5.6
"""Core-seconds of CP2K for each k-point, electrons as in 8 silicon atoms."""
CP2K_ELECTRONS = 32

BASE_MEMORY = 0.15e9
"""Bytes of a process before it has computed anything."""

GRID_BYTES = {"pw": 600.0, "lcao": 1500.0, "fd": 1500.0}
"""Bytes for each point of the coarse grid: densities and potentials, most of them on one that is twice as fine."""

HBAR2_2M = 3.81
"""ħ²/2m of the electron, eV Å²."""

# Valence electrons of GPAW's PBE data sets, from hydrogen on; other codes' pseudopotentials have much the same.
VALENCE = (
    *(1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 7, 10, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 6, 15, 8, 9, 16, 11, 12, 3, 4, 5, 6, 7, 8),
    *(9, 10, 11, 12, 13, 14, 15, 16, 15, 16, 17, 12, 13, 14, 15, 6, 7, 8, 9, 10),
    *(11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 12, 13, 14, 13, 14, 15, 16, 11, 18, 13, 14, 15, 16, 7, 8),
)

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
    """Core-seconds of a label; `benchmarks/label/estimate.py` compares them with what labels take."""
    labeller = config.labeller
    if not isinstance(labeller, KpointsSection):
        return CHEAP_LABEL_S
    values = labeller.model_dump()
    kpoints = _kpoints(labeller, atoms) * (SPIN_STEPS if values["spin"] else 1)
    electrons = _electrons(atoms)
    volume = _box(labeller, atoms).cell.volume
    match labeller:
        case Cp2kConfig():
            return float(START_S + CP2K_S * kpoints * (electrons / CP2K_ELECTRONS) ** 2)
        case GpawConfig(mode="lcao"):
            radii = np.maximum(REACH[0] * covalent_radii[atoms.numbers], REACH[1])
            spheres = ORBITALS_PER_ATOM.get(labeller.basis, ORBITALS_PER_ATOM["dzp"]) * float((radii**3).sum())
            return float(START_S + _grid_s(labeller, volume) + LCAO_S * kpoints * spheres**2 / volume)
        case GpawConfig(mode="fd"):
            fine = (GRID_SPACING / labeller.spacing) ** 3
            return float(START_S + _grid_s(labeller, volume) + FD_S * kpoints * _bands(electrons) * volume * fine)
    bands = _bands(electrons)
    return float(START_S + PW_S * kpoints * bands * (1 + bands / PW_BANDS) * volume * (values["ecut"] / PW_ECUT) ** 1.5)


def _grid_s(labeller: GpawConfig, volume: float) -> float:
    return GRID_S * volume * (GRID_SPACING / labeller.spacing) ** 3


def label_memory(config: CampaignConfig, atoms: Atoms) -> float:
    """Bytes that a label needs: grids, and the coefficients of all bands at all k-points twice."""
    labeller = config.labeller
    if not isinstance(labeller, KpointsSection):
        return 0.0
    values = labeller.model_dump()
    volume = _box(labeller, atoms).cell.volume
    cutoff = (values.get("ecut", PW_ECUT) / HBAR2_2M) ** 0.5
    mode = values.get("mode", "pw")
    points = volume / values["spacing"] ** 3 if mode != "pw" else volume * (2 * cutoff / math.pi) ** 3
    waves = {"pw": volume * cutoff**3 / (6 * math.pi**2), "lcao": 0.0, "fd": points}[mode]
    return float(BASE_MEMORY + GRID_BYTES[mode] * points + 2 * 16 * waves * _bands(_electrons(atoms)) * _kpoints(labeller, atoms))


def _electrons(atoms: Atoms) -> int:
    return sum(VALENCE[min(z, len(VALENCE)) - 1] for z in atoms.numbers)


def _bands(electrons: int) -> float:
    """As many as GPAW takes."""
    return 0.6 * electrons + 4


def _kpoints(labeller: KpointsSection, atoms: Atoms) -> float:
    """K-points of both spins, where k and -k are one."""
    grid = grid_of(labeller, atoms)
    own_inverse = math.prod(2 - n % 2 if labeller.gamma_centred else n % 2 for n in grid)
    return (math.prod(grid) + own_inverse) / 2 * (2 if labeller.model_dump()["spin"] else 1)


def _box(labeller: KpointsSection, atoms: Atoms) -> Atoms:
    return in_box(atoms, labeller.model_dump()["vacuum"])
