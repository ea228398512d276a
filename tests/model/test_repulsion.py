"""Atoms pressed together are pushed apart; atoms at bond length are left alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms

from al_leignn.model.graph import build_graph
from al_leignn.model.leignn import LEIGNN, Output
from al_leignn.model.repulsion import level_off

Evaluate = Callable[[LEIGNN, Atoms], Output]
MakeModel = Callable[..., LEIGNN]


@pytest.fixture
def silent(make_model: MakeModel) -> LEIGNN:
    """A potential whose network says nothing."""
    model = make_model(species=(1, 6, 8, 14))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def pair(symbols: str, r: float) -> Atoms:
    return Atoms(symbols, positions=[[0, 0, 0], [r * 0.6, 0, r * 0.8]])


@pytest.mark.parametrize(
    ("symbols", "bond"), [("Si2", 2.35), ("H2", 0.74), ("CH", 1.09), ("OH", 0.96), ("SiH", 1.48), ("C2", 1.20), ("CO", 1.13)]
)
def test_bonds_are_left_alone_and_crushed_bonds_are_not(silent: LEIGNN, evaluate: Evaluate, symbols: str, bond: float) -> None:
    e0 = sum(silent.e0s[int(z)] for z in Atoms(symbols).numbers)
    assert float(evaluate(silent, pair(symbols, bond)).energy) == e0
    assert float(evaluate(silent, pair(symbols, 0.9 * bond)).energy) - e0 < 0.1
    energies = [float(evaluate(silent, pair(symbols, bond * s)).energy) - e0 for s in (0.5, 0.3, 0.1, 0.03)]
    assert all(a < b for a, b in zip([0.0, *energies], energies, strict=False))
    assert energies[-1] > 50.0


def test_close_to_the_nuclei_it_is_the_coulomb_repulsion(silent: LEIGNN, evaluate: Evaluate) -> None:
    r = 2e-3
    energy = float(evaluate(silent, pair("Si2", r)).energy) - 2 * silent.e0s[14]
    assert energy == pytest.approx(14.399645 * 14**2 / r, rel=0.05)


def test_its_forces_and_stress_are_its_derivatives(silent: LEIGNN, evaluate: Evaluate) -> None:
    atoms = Atoms("SiOHC", positions=[[0, 0, 0], [0.9, 0.1, 0], [0.2, 0.5, 0.1], [-0.8, 0.1, 0.6]], cell=np.eye(3) * 8, pbc=True)
    output = evaluate(silent, atoms)
    assert output.forces is not None
    assert output.stress is not None
    rng = np.random.default_rng(0)
    direction, strain = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    strain += strain.T
    h = 1e-5

    def along(h: float) -> float:
        moved = atoms.copy()
        moved.positions += h * direction
        return float(evaluate(silent, moved).energy)

    def strained(h: float) -> float:
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ (np.eye(3) + h * strain), scale_atoms=True)
        return float(evaluate(silent, moved).energy)

    assert (along(h) - along(-h)) / (2 * h) == pytest.approx(-float((output.forces * torch.tensor(direction)).sum()), rel=1e-6)
    stress = float((output.stress[0] * torch.tensor(strain)).sum()) * atoms.get_volume()
    assert (strained(h) - strained(-h)) / (2 * h) == pytest.approx(stress, rel=1e-6)


def test_models_of_every_kind_repel_at_once(model: LEIGNN, evaluate: Evaluate) -> None:
    output = evaluate(model, Atoms("SiO", positions=[[0, 0, 0], [0, 0, 0.15]]))
    assert output.forces is not None
    assert float(output.forces[0, 2]) < -100.0
    assert float(output.forces[1, 2]) > 100.0


def test_the_gradient_by_weights_does_not_notice_it(make_model: MakeModel) -> None:
    model = make_model()
    graph = build_graph(pair("Si2", 1.2), model.cutoff, model.species)
    output = model(graph, create_graph=True)
    (output.forces.square().sum() + output.energy.sum()).backward(inputs=list(model.parameters()))
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_distances_level_off_smoothly_inside_the_core() -> None:
    core = torch.full((1, 400), 1.5, dtype=torch.float64)
    r = torch.linspace(0, 3, 400, dtype=torch.float64).unsqueeze(0).requires_grad_()
    seen = level_off(r, core)
    (slope,) = torch.autograd.grad(seen.sum(), r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    seen, slope = seen.detach(), slope.detach()
    outside = r.detach() >= core
    torch.testing.assert_close(seen[outside], r.detach()[outside])
    assert float(seen[0, 0]) == 0.75
    assert float(slope[0, 0]) == 0.0
    assert (slope >= 0).all()
    for derivative in (slope, curvature):
        assert float(derivative.diff().abs().max()) < 0.05
