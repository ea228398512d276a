"""Small models of every kind, and structures of every kind."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from jaxtyping import Float

from al_leignn.config import ModelConfig
from al_leignn.model.graph import build_graph, collate
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
TRAINED = ["local, trained", "paper, trained"]


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


def _metal(seed: int) -> Atoms:
    """Four rattled atoms of what the labels of `_trained` hold for aluminium."""
    atoms = bulk("Al", cubic=True)
    atoms.numbers[:] = 14
    atoms.positions += np.random.default_rng(seed).normal(scale=0.1, size=(4, 3))
    return atoms


STRUCTURES: dict[str, MakeAtoms] = {"crystal": _crystal, "cluster": _cluster, "slab": _slab}


@cache
def _trained(preset: str, seed: int = 0) -> LEIGNN:
    """Fitted for seconds to effective medium theory, in which aluminium stands for the silicon that it lacks.

    What matters is that weights are no longer random and that dynamics stay near what was learned, not the errors.
    """
    model = _make_model(preset, seed=seed)
    frames = [make(k) for make in (*STRUCTURES.values(), _metal, _metal) for k in range(4)]
    energies, forces = [], []
    for frame in frames:
        labelled = frame.copy()
        labelled.numbers[labelled.numbers == 14] = 13
        labelled.calc = EMT()
        energies.append(labelled.get_potential_energy() + sum(model.e0s[int(z)] for z in frame.numbers))
        forces.append(labelled.get_forces())
    counts = torch.tensor([len(frame) for frame in frames])
    energy, force = torch.tensor(energies), torch.tensor(np.concatenate(forces))
    graph = collate([build_graph(frame, model.cutoff, model.species) for frame in frames])
    parameters = list(model.parameters())
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(50):
        output = model(graph, create_graph=True)
        loss = (output.forces - force).abs().mean() + ((output.energy - energy) / counts).abs().mean()
        optimiser.zero_grad()
        loss.backward(inputs=parameters)
        optimiser.step()
    assert float((output.forces.detach() - force).abs().mean()) < 0.6 * float(force.abs().mean())
    model.zero_grad(set_to_none=True)
    return model


def _of_kind(kind: str) -> LEIGNN:
    preset, _, state = kind.partition(", ")
    return copy.deepcopy(_trained(preset)) if state == "trained" else _make_model(**KINDS[kind])  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Builds a small float64 potential for H, O and Si with random weights, whose outputs are a few eV and eV/Å."""
    return _make_model


@pytest.fixture(scope="session", params=[*KINDS, *TRAINED])
def model(request: pytest.FixtureRequest) -> LEIGNN:
    """One of every kind, with random weights, and trained ones."""
    return _of_kind(request.param)


@pytest.fixture(scope="session", params=[kind for kind in (*KINDS, *TRAINED) if "direct" not in kind])
def conservative(request: pytest.FixtureRequest) -> LEIGNN:
    """One of every kind whose forces are a gradient, and trained ones."""
    return _of_kind(request.param)


@pytest.fixture(scope="session")
def trained() -> list[LEIGNN]:
    """Two members of preset `local` fitted to the same labels."""
    return [copy.deepcopy(_trained("local", seed)) for seed in range(2)]


@pytest.fixture(scope="session")
def metal() -> MakeAtoms:
    """Four rattled atoms of a metal that trained models have seen."""
    return _metal


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
    """Random rotations; times -1 they reflect."""

    def build(seed: int) -> Float[np.ndarray, "3 3"]:
        rotation: Any = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
        return np.asarray(rotation * np.sign(np.linalg.det(rotation)))

    return build


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
