"""Neighbour lists of moving batches: never a pair missed, whatever moves."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from jaxtyping import Float
from torch import Tensor

from al_leignn.explore.neighbours import Neighbours
from al_leignn.model.graph import Graph, build_graph, collate, trim

CUTOFF = 4.0
SPECIES = (1, 8, 13, 14)


def structures() -> list[Atoms]:
    slab = fcc111("Al", (2, 2, 2), vacuum=5.0)
    slab.pbc = (True, True, False)
    return [bulk("Si", cubic=True), bulk("Al"), slab, molecule("H2O")]


def edge_vectors(graph: Graph) -> Float[np.ndarray, "edges 5"]:
    """Centre, neighbour and vector of each edge in a canonical order, independent of which image an atom sits in."""
    vector = graph.positions[graph.neighbour] - graph.positions[graph.centre] + graph.offsets()
    rows = torch.cat([graph.centre.unsqueeze(1), graph.neighbour.unsqueeze(1), vector], dim=1).numpy()
    rows = rows[np.lexsort(np.round(rows[:, ::-1].T, 4))]
    return np.asarray(rows)


def within(lists: Neighbours, positions: Tensor, cells: Tensor | None = None) -> Graph:
    """The edges up to the cutoff."""
    return trim(lists.graph(positions, lists.cells if cells is None else cells), CUTOFF)


def lengths(lists: Neighbours, positions: Tensor, cells: Tensor | None = None) -> list[float]:
    """Of the pairs up to the cutoff, from the shortest; each of two different atoms twice, as edges run both ways."""
    i, j, distance = lists.pairs(positions, lists.cells if cells is None else cells)
    twice = torch.cat([distance, distance[i != j]])
    return sorted(twice[twice < CUTOFF].tolist())


def fresh(batch: list[Atoms], positions: Tensor, cells: Tensor | None = None) -> Graph:
    graphs, first = [], 0
    for s, atoms in enumerate(batch):
        now = atoms.copy()
        if cells is not None:
            now.set_cell(cells[s].numpy())
        now.positions = positions[first : first + len(atoms)].numpy()
        graphs.append(build_graph(now, CUTOFF, SPECIES))
        first += len(atoms)
    return collate(graphs)


def positions_of(batch: list[Atoms]) -> Tensor:
    return torch.tensor(np.concatenate([atoms.positions for atoms in batch]))


def test_a_walking_batch_has_the_edges_of_a_new_search_at_every_step() -> None:
    batch = structures()
    rng = np.random.default_rng(0)
    lists = Neighbours.of(batch, CUTOFF, SPECIES, skin=0.6)
    positions = positions_of(batch)
    searches = 0
    for _ in range(40):
        positions += torch.tensor(rng.normal(0.0, 0.06, positions.shape))
        before = positions.clone()
        lists.update(positions, lists.cells)
        searches += not torch.equal(before, positions)
        expected = edge_vectors(fresh(batch, positions))
        found = edge_vectors(within(lists, positions))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-9)
        np.testing.assert_allclose(lengths(lists, positions), np.sort(np.linalg.norm(expected[:, 2:], axis=1)), atol=1e-9)
    assert 0 < searches < 40


def test_two_atoms_that_meet_half_way_are_found() -> None:
    pair = Atoms("Si2", [[0, 0, 0], [4.65, 0, 0]])
    lists = Neighbours.of([pair], CUTOFF, SPECIES, skin=0.6)
    positions = positions_of([pair])
    assert lengths(lists, positions) == []
    positions += torch.tensor([[0.33, 0, 0], [-0.33, 0, 0]])
    lists.update(positions, lists.cells)
    assert lengths(lists, positions) == pytest.approx([3.99, 3.99])


@pytest.mark.parametrize("factor", [0.985, 1.015])
def test_cells_that_breathe_miss_no_pair(factor: float) -> None:
    batch = [bulk("Si", cubic=True), bulk("Al")]
    lists = Neighbours.of(batch, CUTOFF, SPECIES, skin=0.5, flexible=True)
    positions, cells = positions_of(batch), lists.cells.clone()
    rng = np.random.default_rng(1)
    for _ in range(12):
        positions, cells = positions * factor, cells * factor
        positions += torch.tensor(rng.normal(0.0, 0.03, positions.shape))
        lists.update(positions, cells)
        found = edge_vectors(within(lists, positions, cells))
        expected = edge_vectors(fresh(batch, positions, cells))
        np.testing.assert_allclose(lengths(lists, positions, cells), np.sort(np.linalg.norm(expected[:, 2:], axis=1)), atol=1e-9)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_drifting_structures_are_brought_home_only_where_space_is_the_same() -> None:
    """Periodic directions fold into the cell; a molecule and a slab's height return; distances stay."""
    batch = structures()
    lists = Neighbours.of(batch, CUTOFF, SPECIES)
    positions = positions_of(batch)
    before = edge_vectors(within(lists, positions))
    positions += torch.tensor([31.0, -17.0, 23.0])
    lists.update(positions, lists.cells)
    np.testing.assert_allclose(edge_vectors(within(lists, positions)), before, atol=1e-9)
    start = positions_of(batch)
    np.testing.assert_allclose(positions[-3:], start[-3:], atol=1e-9)
    np.testing.assert_allclose(positions[9:17, 2], start[9:17, 2], atol=1e-9)
    for atoms, now in zip(batch[:3], positions[:17].split([8, 1, 8]), strict=True):
        inside = np.linalg.solve(atoms.cell.array.T, now.numpy().T).T[:, atoms.pbc]
        assert (inside > -1e-6).all()
        assert (inside < 1 + 1e-6).all()


def test_some_structures_go_on_without_the_others() -> None:
    batch = structures()
    lists = Neighbours.of(batch, CUTOFF, SPECIES)
    some = lists.select([0, 3])
    positions = positions_of([batch[0], batch[3]])
    expected = edge_vectors(fresh([batch[0], batch[3]], positions))
    np.testing.assert_allclose(edge_vectors(within(some, positions)), expected, atol=1e-12)


def test_atoms_that_become_one_are_nowhere_and_the_others_stay() -> None:
    batch = [molecule("H2O"), bulk("Si", cubic=True)]
    lists = Neighbours.of(batch, CUTOFF, SPECIES)
    positions = positions_of(batch)
    positions[:3] = torch.tensor([9.0, 0.0, 0.0])
    lists.update(positions, lists.cells)
    assert torch.isnan(positions[:3]).all()
    assert torch.equal(positions[3:], positions_of(batch[1:]))
    assert torch.isnan(within(lists, positions).lengths()).any()
