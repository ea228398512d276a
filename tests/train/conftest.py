"""A cheap teacher (effective medium theory) and small settings, so that real fits take seconds."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import Frame, LabelledFrame, Labels, Origin

Maker = Callable[..., list[LabelledFrame]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _label(atoms: Atoms, origin: Origin) -> LabelledFrame:
    frame = Frame.of(atoms, origin)
    teacher = frame.atoms.copy()
    teacher.calc = EMT()
    stress = teacher.get_stress() if teacher.cell.rank == 3 else None
    return LabelledFrame(frame, Labels(teacher.get_potential_energy(), teacher.get_forces(), stress), "emt")


def _copper(n: int, seed: int, *, walkers: int = 1, repeat: int = 1) -> list[LabelledFrame]:
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (repeat, 1, 1)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.02, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0.0, 0.1, atoms.positions.shape)
        frames.append(_label(atoms, Origin("md", 0, i % walkers, i)))
    return frames


def _carbon_monoxide(n: int, seed: int) -> list[LabelledFrame]:
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n):
        atoms = molecule("CO")
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        frames.append(_label(atoms, Origin("md", 1, 0, i)))
    return frames


@pytest.fixture(scope="session")
def copper() -> Maker:
    """Rattled, strained fcc cells: `copper(n, seed, walkers=1, repeat=1)`, n frames of 4 x repeat atoms in `walkers` blocks."""
    return _copper


@pytest.fixture(scope="session")
def carbon_monoxide() -> Maker:
    """Free CO molecules with varied bonds and no stress: `carbon_monoxide(n, seed)`."""
    return _carbon_monoxide


@pytest.fixture(scope="session")
def small() -> ModelConfig:
    return ModelConfig(cutoff=4.0, features=8, layers=1, radial=6)


@pytest.fixture(scope="session")
def quick() -> TrainConfig:
    # Fits of few steps: each must be a long one.
    return TrainConfig(batch_atoms=16, learning_rate=0.01, holdout=0.0, dtype="float32", device="cpu")
