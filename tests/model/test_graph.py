"""Neighbour lists against brute force, and what is refused."""

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from al_leignn.errors import StructureError
from al_leignn.model.graph import FAR, build_graph, collate, select_edges, trim


def brute_force(atoms: Atoms, cutoff: float) -> Counter[tuple[int, ...]]:
    """All pairs, all images that could matter."""
    found: Counter[tuple[int, ...]] = Counter()
    reach = 7 * atoms.pbc
    images = np.array(list(np.ndindex(*(2 * reach + 1)))) - reach
    for i in range(len(atoms)):
        for j in range(len(atoms)):
            vectors = atoms.positions[j] - atoms.positions[i] + images @ atoms.cell.array
            for shift in images[np.linalg.norm(vectors, axis=1) < cutoff]:
                if i != j or shift.any():
                    found[(i, j, *map(int, shift))] += 1
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_edges_are_those_of_a_brute_force_search(seed: int, pbc: tuple[bool, bool, bool]) -> None:
    rng = np.random.default_rng(seed)
    skewed: Float[np.ndarray, "3 3"] = np.diag(rng.uniform(1.8, 6.0, 3)) + np.tril(rng.uniform(-1.5, 1.5, (3, 3)), -1)
    atoms = Atoms("Si4", positions=rng.uniform(-4, 8, (4, 3)), cell=skewed, pbc=pbc)
    graph = build_graph(atoms, 3.0, (14,))
    edges = Counter(
        (int(i), int(j), *(int(s) for s in shift)) for i, j, shift in zip(graph.centre, graph.neighbour, graph.shift, strict=True)
    )
    assert edges == brute_force(atoms, 3.0)
    assert (graph.centre.diff() >= 0).all()


def test_rows_list_every_edge_once_at_its_centre() -> None:
    graph = build_graph(bulk("Si", cubic=True) + Atoms("Si", [[1.0, 1.0, 0.5]]), 4.0, (14,))
    n_edges = graph.centre.shape[0]
    real = graph.rows[graph.rows < n_edges]
    assert sorted(real.tolist()) == list(range(n_edges))
    for atom, row in enumerate(graph.rows):
        assert (graph.centre[row[row < n_edges]] == atom).all()


def test_vectors_of_the_rectangle_are_the_edges_and_padding_is_far() -> None:
    atoms = bulk("Si", cubic=True) + Atoms("Si", [[1.0, 1.0, 0.5]])
    graph = build_graph(atoms, 4.0, (14,))
    vectors = graph.vectors(graph.neighbours())
    padding = graph.rows == graph.centre.shape[0]
    assert padding.any()
    assert (vectors[padding].norm(dim=1) == FAR).all()
    ends = graph.positions[graph.neighbour] + graph.shift @ graph.cell[0]
    np.testing.assert_allclose(vectors[~padding], (ends - graph.positions[graph.centre]).numpy(), atol=1e-12)


def test_trimming_a_long_list_gives_the_short_list() -> None:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=1)
    short, trimmed = build_graph(atoms, 3.5, (14,)), trim(build_graph(atoms, 5.0, (14,)), 3.5)
    assert short.centre.tolist() == trimmed.centre.tolist()
    assert sorted(zip(short.centre.tolist(), short.neighbour.tolist(), short.shift.tolist(), strict=True)) == sorted(
        zip(trimmed.centre.tolist(), trimmed.neighbour.tolist(), trimmed.shift.tolist(), strict=True)
    )
    assert trimmed.rows.shape == short.rows.shape


def test_selecting_no_edge_leaves_lone_atoms() -> None:
    graph = select_edges(build_graph(bulk("Si"), 4.0, (14,)), torch.zeros(0, dtype=torch.int64))
    assert graph.rows.shape == (2, 0)


def test_collating_keeps_everything_in_order() -> None:
    one, other = bulk("Si"), Atoms("SiH", positions=[[0, 0, 0], [0, 0, 1.5]])
    graphs = [build_graph(a, 4.0, (1, 14)) for a in (one, other, one)]
    joined = collate(graphs)
    assert joined.n_structures == 3
    assert joined.structure.tolist() == [0, 0, 1, 1, 2, 2]
    assert joined.species.tolist() == [1, 1, 1, 0, 1, 1]
    assert joined.periodic.tolist() == [True, False, True]
    assert joined.centre.shape[0] == sum(g.centre.shape[0] for g in graphs)
    assert (joined.structure[joined.centre] == joined.structure[joined.neighbour]).all()


def test_moving_to_a_device_keeps_types_and_values() -> None:
    graph = build_graph(bulk("Si"), 4.0, (14,))
    moved = graph.to("cpu")
    for field in fields(graph):
        value = getattr(graph, field.name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(moved, field.name), value)
            assert value.dtype == (torch.float64 if value.is_floating_point() else value.dtype)


def broken(**changes: object) -> Atoms:
    atoms = bulk("Si", cubic=True)
    for name, value in changes.items():
        setattr(atoms, name, value)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "says"),
    [
        (Atoms(), "no atoms"),
        (broken(positions=np.full((8, 3), np.nan)), "not finite"),
        (broken(positions=np.full((8, 3), np.inf)), "not finite"),
        (broken(cell=np.zeros((3, 3))), "no volume"),
        (broken(cell=[[5, 0, 0], [0, 5, 0], [5, 5, 0]]), "no volume"),
        (broken(cell=np.full((3, 3), np.nan)), "not made of finite"),
        (broken(numbers=[14] * 7 + [92]), "does not know U"),
        (Atoms("Si2", positions=[[0, 0, 0], [0, 0, 1e-4]]), "Å apart"),
        (Atoms("Si2", positions=[[0, 0, 0], [0, 0, 5]], cell=[9, 9, 5], pbc=True), "Å apart"),
    ],
)
def test_impossible_structures_are_refused_with_a_reason(atoms: Atoms, says: str) -> None:
    with pytest.raises(StructureError, match=says):
        build_graph(atoms, 5.0, (14,))


@pytest.mark.parametrize("length", [1e-9, 0.05, 1e6, 1e20, 1e150])
@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, False)])
def test_cells_on_which_the_search_would_end_the_process_are_refused(length: float, pbc: tuple[bool, bool, bool]) -> None:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 2, 0]], cell=[length, 5.0, 5.0], pbc=pbc)
    with pytest.raises(StructureError, match="misplaced decimal point"):
        build_graph(atoms, 3.0, (14,))


def test_a_cell_that_no_direction_uses_does_not_matter() -> None:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.2]], cell=[[1, 0, 0], [1, 0, 0], [0, 0, 0]], pbc=False)
    graph = build_graph(atoms, 5.0, (14,))
    assert graph.centre.shape[0] == 2
    assert not graph.cell.any()
