"""Small models of every kind, and structures of every kind."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from jaxtyping import Float

from al_leignn.config import ModelConfig
from al_leignn.model.graph import build_graph
from al_leignn.model.leignn import LEIGNN, Output

MakeModel = Callable[..., LEIGNN]
MakeAtoms = Callable[[int], Atoms]

KINDS: dict[str, dict[str, object]] = {
    "local": {"preset": "local"},
    "local-1-layer": {"preset": "local", "layers": 1},
    "local-3-layers": {"preset": "local", "layers": 3},
    "paper": {"preset": "paper"},
    "paper-direct": {"preset": "paper", "direct_forces": True},
}


def _make_model(preset: str = "local", seed: int = 0, species: tuple[int, ...] = (1, 8, 14), **settings: object) -> LEIGNN:
    config = ModelConfig.model_validate({"preset": preset, "features": 6, "radial": 5, "cutoff": 4.0} | settings)
    e0s = {1: -13.5, 8: -430.0, 14: -110.0}
    model = LEIGNN(config, species, e0s={z: e0s.get(z, -1.0) for z in species}, energy_scale=5.0, mean_neighbours=12.0, seed=seed)
    return model.double()


def _crystal(seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = bulk("Si", cubic=True)
    atoms.numbers[rng.integers(8, size=3)] = 8
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.03, size=(3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(scale=0.1, size=(8, 3))
    return atoms


def _cluster(seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms: Atoms = molecule("SiH4") + molecule("H2O")
    atoms.positions[5:] += [2.2, 0.3, 0.4]
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return atoms


def _slab(seed: int) -> Atoms:
    atoms = _crystal(seed)
    atoms.pbc = (True, True, False)
    cell = atoms.cell.array.copy()
    cell[2] = 0.0  # a slab need not have a third lattice vector
    atoms.set_cell(cell)
    return atoms


STRUCTURES: dict[str, MakeAtoms] = {"crystal": _crystal, "cluster": _cluster, "slab": _slab}


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Builds a small float64 potential for H, O and Si with random weights, whose outputs are a few eV and eV/Å."""
    return _make_model


@pytest.fixture(scope="session", params=list(KINDS))
def model(request: pytest.FixtureRequest) -> LEIGNN:
    """One of every kind."""
    return _make_model(**KINDS[request.param])  # type: ignore[arg-type]


@pytest.fixture(scope="session", params=[kind for kind in KINDS if "direct" not in kind])
def conservative(request: pytest.FixtureRequest) -> LEIGNN:
    """One of every kind whose forces are a gradient."""
    return _make_model(**KINDS[request.param])  # type: ignore[arg-type]


@pytest.fixture(scope="session", params=list(STRUCTURES))
def make_atoms(request: pytest.FixtureRequest) -> MakeAtoms:
    """Builds random structures of one kind: crystal (smaller than the cutoff), cluster without a cell, slab."""
    return STRUCTURES[request.param]


@pytest.fixture(scope="session")
def crystal() -> MakeAtoms:
    """Eight rattled Si and O atoms in a sheared cell."""
    return _crystal


@pytest.fixture(scope="session")
def cluster() -> MakeAtoms:
    """Silane and water, distorted, without a cell."""
    return _cluster


@pytest.fixture(scope="session")
def evaluate() -> Callable[[LEIGNN, Atoms], Output]:
    """Runs a model on one structure, stress included."""

    def run(model: LEIGNN, atoms: Atoms) -> Output:
        output: Output = model(build_graph(atoms, model.cutoff, model.species), stress=True)
        return output

    return run


@pytest.fixture(scope="session")
def random_rotation() -> Callable[[int], Float[np.ndarray, "3 3"]]:
    """Random orthogonal matrices; those of odd seeds reflect."""

    def build(seed: int) -> Float[np.ndarray, "3 3"]:
        rotation: Any = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
        sign = -1 if seed % 2 else 1
        return np.asarray(rotation * np.sign(np.linalg.det(rotation)) * sign)

    return build


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
