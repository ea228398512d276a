"""Laws of physics, for every kind of model, in double precision. What a kind gives up is asserted as given up."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from al_leignn.model.graph import build_graph, collate
from al_leignn.model.leignn import LEIGNN, Output
from al_leignn.model.repulsion import REACH

Evaluate = Callable[[LEIGNN, Atoms], Output]
MakeAtoms = Callable[[int], Atoms]
MakeModel = Callable[..., LEIGNN]
Rotation = Callable[[int], Float[np.ndarray, "3 3"]]

seeds = st.integers(0, 10_000)
few = settings(max_examples=4, deadline=None, derandomize=True)


def numpy(values: torch.Tensor | None) -> Float[np.ndarray, "*shape"]:
    assert values is not None
    array: Float[np.ndarray, "*shape"] = values.detach().numpy()
    return array


def close(
    actual: Float[np.ndarray, "*shape"], expected: Float[np.ndarray, "*shape"] | float, *, rtol: float = 1e-9, atol: float = 1e-10
) -> None:
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def test_forces_and_energies_are_of_a_size_that_lets_the_laws_fail(
    model: LEIGNN, make_atoms: MakeAtoms, evaluate: Evaluate
) -> None:
    output = evaluate(model, make_atoms(0))
    assert np.abs(numpy(output.forces)).max() > 0.02
    assert np.ptp(numpy(output.node_energy)) > 0.02


@few
@given(seed=seeds)
def test_rotation_and_reflection_turn_the_results_along(
    model: LEIGNN, make_atoms: MakeAtoms, evaluate: Evaluate, random_rotation: Rotation, seed: int
) -> None:
    atoms = make_atoms(seed)
    before = evaluate(model, atoms)
    for rotation in (random_rotation(seed), -random_rotation(seed)):
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ rotation.T)
        turned.positions = atoms.positions @ rotation.T
        after = evaluate(model, turned)
        close(numpy(after.node_energy), numpy(before.node_energy))
        close(numpy(after.forces), numpy(before.forces) @ rotation.T)
        close(numpy(after.stress)[0], rotation @ numpy(before.stress)[0] @ rotation.T)


@few
@given(seed=seeds)
def test_translation_permutation_and_lattice_shifts_change_nothing(
    model: LEIGNN, make_atoms: MakeAtoms, evaluate: Evaluate, seed: int
) -> None:
    atoms = make_atoms(seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(atoms))
    other = atoms[order]
    shifts = rng.integers(-3, 4, size=(len(atoms), 3)) * atoms.pbc
    other.positions += rng.normal(scale=5.0, size=3) + shifts @ atoms.cell.array
    before, after = evaluate(model, atoms), evaluate(model, other)
    close(numpy(after.node_energy), numpy(before.node_energy)[order])
    close(numpy(after.forces), numpy(before.forces)[order])
    close(numpy(after.stress), numpy(before.stress))


@few
@given(seed=seeds)
def test_forces_are_minus_the_gradient_of_the_energy(
    conservative: LEIGNN, make_atoms: MakeAtoms, evaluate: Evaluate, seed: int
) -> None:
    atoms = make_atoms(seed)
    forces = numpy(evaluate(conservative, atoms).forces)
    assert conservative.conservative
    direction = np.random.default_rng(seed).normal(size=forces.shape)
    slope = _slope(lambda h: _moved(atoms, h * direction), conservative, evaluate)
    assert slope == pytest.approx(-(forces * direction).sum(), rel=1e-6, abs=1e-7)


@few
@given(seed=seeds)
def test_a_direct_head_gives_up_conservation_and_says_so(
    make_model: MakeModel, crystal: MakeAtoms, evaluate: Evaluate, seed: int
) -> None:
    model = make_model("paper", direct_forces=True)
    atoms = crystal(seed)
    forces = numpy(evaluate(model, atoms).forces)
    direction = np.random.default_rng(seed).normal(size=forces.shape)
    slope = _slope(lambda h: _moved(atoms, h * direction), model, evaluate)
    assert not model.conservative
    assert abs(slope + (forces * direction).sum()) > 0.01
    assert np.abs(forces.sum(axis=0)).max() > 1e-4


@few
@given(seed=seeds)
def test_stress_is_the_derivative_by_strain_over_volume(model: LEIGNN, crystal: MakeAtoms, evaluate: Evaluate, seed: int) -> None:
    atoms = crystal(seed)
    stress = numpy(evaluate(model, atoms).stress)[0]
    close(stress, stress.T)
    strain = np.random.default_rng(seed).normal(size=(3, 3))
    strain += strain.T

    def strained(h: float) -> Atoms:
        other: Atoms = atoms.copy()
        other.set_cell(atoms.cell.array @ (np.eye(3) + h * strain), scale_atoms=True)
        return other

    slope = _slope(strained, model, evaluate) / atoms.get_volume()
    assert slope == pytest.approx((stress * strain).sum(), rel=1e-6, abs=1e-8)


@few
@given(seed=seeds)
def test_net_force_and_torque_vanish(conservative: LEIGNN, make_atoms: MakeAtoms, evaluate: Evaluate, seed: int) -> None:
    atoms = make_atoms(seed)
    forces = numpy(evaluate(conservative, atoms).forces)
    size = np.abs(forces).max()
    close(forces.sum(axis=0) / size, 0.0, atol=1e-12)
    if not atoms.pbc.any():
        close(np.cross(atoms.positions, forces).sum(axis=0) / size, 0.0, atol=1e-11)


@few
@given(seed=seeds, repeats=st.sampled_from([(2, 1, 1), (1, 3, 1), (2, 1, 2)]))
def test_a_supercell_has_a_multiple_of_the_energy(
    model: LEIGNN, crystal: MakeAtoms, evaluate: Evaluate, seed: int, repeats: tuple[int, int, int]
) -> None:
    atoms = crystal(seed)
    n = int(np.prod(repeats))
    one, many = evaluate(model, atoms), evaluate(model, atoms * repeats)
    close(numpy(many.energy), n * numpy(one.energy), rtol=1e-12)
    close(numpy(many.forces), np.tile(numpy(one.forces), (n, 1)))
    close(numpy(many.stress), numpy(one.stress))


@few
@given(seed=seeds)
def test_far_fragments_do_not_notice_each_other_or_are_declared_to(
    model: LEIGNN, cluster: MakeAtoms, evaluate: Evaluate, seed: int
) -> None:
    one, other = cluster(seed), cluster(seed + 1)[:5]
    other.positions += 50.0
    together, apart = evaluate(model, one + other), [evaluate(model, atoms) for atoms in (one, other)]
    difference = abs(float(together.energy - apart[0].energy - apart[1].energy))
    assert model.size_consistent == (model.config.preset == "local")
    if model.size_consistent:
        assert difference < 1e-9
        close(numpy(together.node_energy), np.concatenate([numpy(o.node_energy) for o in apart]), rtol=1e-12)
        close(numpy(together.forces), np.concatenate([numpy(o.forces) for o in apart]), atol=1e-12)
    else:
        assert difference > 1e-5


@few
@given(seed=seeds)
def test_energy_and_force_are_continuous_where_the_repulsion_begins(
    model: LEIGNN, evaluate: Evaluate, random_rotation: Rotation, seed: int
) -> None:
    core = REACH * (covalent_radii[14] + covalent_radii[8])
    axis, third = random_rotation(seed)[:2]

    def at(r: float) -> Output:
        return evaluate(model, Atoms("SiOH", positions=[0 * axis, r * axis, 1.6 * third]))

    h = 1e-6
    inside, inner, outer, outside = (at(core + k * h) for k in (-2, -1, 1, 2))
    pull = [float((numpy(o.forces)[1] * axis).sum()) for o in (inside, inner, outer, outside)]
    # The slope of the force is the same on both sides, and no jump adds to it between them.
    slope = (pull[1] - pull[0]) / h
    assert (pull[3] - pull[2]) / h == pytest.approx(slope, rel=0.05, abs=0.05)
    assert (pull[2] - pull[1]) / (2 * h) == pytest.approx(slope, rel=0.05, abs=0.05)
    if model.conservative:
        assert float(outer.energy - inner.energy) == pytest.approx(-h * (pull[1] + pull[2]), abs=1e-9)


def test_energy_force_and_curvature_are_continuous_through_the_cutoff(model: LEIGNN, evaluate: Evaluate) -> None:
    # The third atom meets the first, whose surroundings are not symmetric, and never the second.
    def at(r: float) -> Output:
        return evaluate(model, Atoms("SiOSi", positions=[[0, 0, 0], [-1.6, 0.4, 0], [r, 0, 0]]))

    edge, outside = at(model.cutoff), at(model.cutoff + 1e-3)
    close(numpy(edge.energy), numpy(outside.energy), rtol=1e-14)
    close(numpy(edge.forces), numpy(outside.forces), atol=1e-12)
    far, near = at(model.cutoff - 0.02), at(model.cutoff - 0.01)
    # Half the distance to the cutoff leaves an eighth of the energy (third order) at most, and a quarter of the force.
    energies = [float(o.energy - edge.energy) for o in (far, near)]
    forces = [float(numpy(o.forces)[0, 0] - numpy(edge.forces)[0, 0]) for o in (far, near)]
    assert abs(energies[0]) > 1e-9
    assert energies[0] / energies[1] > 7.5
    assert forces[0] / forces[1] > 3.7


def test_second_derivatives_are_finite_where_vectors_vanish(conservative: LEIGNN, evaluate: Evaluate) -> None:
    perfect = bulk("Si", cubic=True)
    h = 1e-4
    stiffness = []
    for step in (h, 2 * h):
        moved = perfect.copy()
        moved.positions[0, 0] += step
        stiffness.append(float(numpy(evaluate(conservative, moved).forces)[0, 0]) / step)
    assert np.isfinite(stiffness).all()
    close(numpy(evaluate(conservative, perfect).forces), 0.0, atol=1e-10)
    if conservative.config.preset == "local":
        assert stiffness[0] == pytest.approx(stiffness[1], rel=1e-2)


@few
@given(seed=seeds)
def test_a_batch_gives_what_single_structures_give(
    model: LEIGNN, crystal: MakeAtoms, cluster: MakeAtoms, evaluate: Evaluate, seed: int
) -> None:
    frames = [crystal(seed), cluster(seed), Atoms("H"), crystal(seed) * (2, 1, 1), Atoms("O", cell=np.eye(3) * 20, pbc=True)]
    np.random.default_rng(seed).shuffle(frames)
    batch = model(collate([build_graph(frame, model.cutoff, model.species) for frame in frames]), stress=True)
    first = 0
    for k, frame in enumerate(frames):
        single = evaluate(model, frame)
        own = slice(first, first + len(frame))
        close(numpy(batch.energy)[k], numpy(single.energy)[0])
        close(numpy(batch.node_energy)[own], numpy(single.node_energy))
        close(numpy(batch.forces)[own], numpy(single.forces))
        close(numpy(batch.stress)[k], numpy(single.stress)[0])
        first += len(frame)


@pytest.mark.parametrize("pbc", [False, True])
def test_a_lone_atom_feels_nothing(model: LEIGNN, evaluate: Evaluate, pbc: bool) -> None:
    output = evaluate(model, Atoms("Si", cell=np.eye(3) * 15.0, pbc=pbc))
    assert np.isfinite(numpy(output.energy)).all()
    np.testing.assert_array_equal(numpy(output.stress), 0.0)
    if model.conservative:
        np.testing.assert_array_equal(numpy(output.forces), 0.0)


@pytest.mark.parametrize("pbc", [False, True])
def test_atoms_out_of_reach_have_the_energies_of_lone_atoms(conservative: LEIGNN, evaluate: Evaluate, pbc: bool) -> None:
    far = Atoms("SiOH", positions=[[0, 0, 0], [0, 0, 6], [0, 6, 0]], cell=np.eye(3) * 14.0, pbc=pbc)
    assert build_graph(far, conservative.cutoff, conservative.species).centre.numel() == 0
    output = evaluate(conservative, far)
    np.testing.assert_array_equal(numpy(output.forces), 0.0)
    np.testing.assert_array_equal(numpy(output.stress), 0.0)
    alone = [float(evaluate(conservative, Atoms(symbol)).energy) for symbol in ("Si", "O", "H")]
    if conservative.size_consistent:
        close(numpy(output.node_energy), np.array(alone), rtol=1e-12)


def test_two_atoms_push_along_their_axis(conservative: LEIGNN, evaluate: Evaluate) -> None:
    axis = np.array([1.0, 2.0, -2.0]) / 3
    forces = numpy(evaluate(conservative, Atoms("SiO", positions=[0 * axis, 1.7 * axis])).forces)
    close(forces[1], -forces[0], atol=1e-12)
    close(np.cross(forces[0], axis), 0.0, atol=1e-12)
    assert np.linalg.norm(forces[0]) > 0.01


@pytest.mark.parametrize("shear", [(0, 1), (1, 2)])
def test_the_local_network_sees_angles_where_every_site_is_a_centre_of_inversion(
    make_model: MakeModel, shear: tuple[int, int]
) -> None:
    """In a strained fcc cell all vectors vanish; matrices must not, or shear would be seen through distances alone."""
    model = make_model(features=8)
    atoms = bulk("Si", "fcc", a=4.2)
    strain = np.eye(3)
    strain[shear] += 0.05
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    graph = build_graph(atoms, model.cutoff, model.species)
    edges = model.edges(graph)
    network = model.network
    _, tensors = network.first(graph.species[edges.neighbours], edges.basis)  # type: ignore[operator]
    assert float(tensors[:3].detach().abs().max()) < 1e-12
    assert float(tensors[3:].detach().abs().max()) > 1e-2


def test_the_output_follows_the_precision_of_the_weights(make_model: MakeModel, crystal: MakeAtoms) -> None:
    model = make_model()
    graph = build_graph(crystal(0), model.cutoff, model.species)
    double, single = model(graph, stress=True), make_model().float()(graph, stress=True)
    assert single.forces.dtype == single.stress.dtype == torch.float32
    assert single.energy.dtype == torch.float64
    close(numpy(single.energy), numpy(double.energy), atol=1e-4)
    close(numpy(single.forces), numpy(double.forces), atol=1e-4)


def test_far_from_the_origin_single_precision_loses_nothing(make_model: MakeModel, crystal: MakeAtoms) -> None:
    model = make_model().float()
    atoms = crystal(0)
    here = model(build_graph(atoms, model.cutoff, model.species)).forces
    atoms.positions += 1e4 * atoms.cell.array[0]
    there = model(build_graph(atoms, model.cutoff, model.species)).forces
    close(numpy(there), numpy(here), atol=1e-4)


def test_gradients_of_a_loss_by_the_weights_match_finite_differences(model: LEIGNN, crystal: MakeAtoms) -> None:
    model = copy.deepcopy(model)
    graph = build_graph(crystal(0), model.cutoff, model.species)
    generator = torch.Generator().manual_seed(1)
    parameters = list(model.parameters())
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) * p.detach().abs().mean() for p in parameters]

    def loss(create_graph: bool) -> torch.Tensor:
        output = model(graph, stress=True, create_graph=create_graph)
        total: torch.Tensor = output.forces.square().sum() + output.stress.square().sum() + output.energy.sum()
        return total

    loss(True).backward(inputs=parameters)
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, directions, strict=True) if p.grad is not None)
    assert abs(slope) > 1e-3
    # Fourth-order central difference along a random direction of all weights.
    h = 1e-4
    values = {}
    for step in (-2, -1, 1, 2):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=step * h)
        values[step] = loss(False).item()
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(d, alpha=step * h)
    assert (values[-2] - 8 * values[-1] + 8 * values[1] - values[2]) / (12 * h) == pytest.approx(slope, rel=1e-6)


def test_moved_positions_in_an_old_graph_give_what_a_new_graph_gives(conservative: LEIGNN, crystal: MakeAtoms) -> None:
    atoms = crystal(0)
    graph = build_graph(atoms, conservative.cutoff + 0.5, conservative.species)
    atoms.positions += np.random.default_rng(1).normal(scale=0.02, size=(8, 3))
    moved = replace(graph, positions=torch.tensor(atoms.positions))
    new = build_graph(atoms, conservative.cutoff, conservative.species)
    close(numpy(conservative(moved).forces), numpy(conservative(new).forces))


def _moved(atoms: Atoms, displacement: Float[np.ndarray, "n_atoms 3"]) -> Atoms:
    other: Atoms = atoms.copy()
    other.positions += displacement
    return other


def _slope(path: Callable[[float], Atoms], model: LEIGNN, evaluate: Evaluate) -> float:
    """Fourth-order central difference of the energy along a path, at zero."""
    h = 2e-5
    energy = {k: float(evaluate(model, path(k * h)).energy) for k in (-2, -1, 1, 2)}
    return (energy[-2] - 8 * energy[-1] + 8 * energy[1] - energy[2]) / (12 * h)
