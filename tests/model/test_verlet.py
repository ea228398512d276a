"""Reused neighbour lists must be indistinguishable from new ones, whatever happens to the atoms."""

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from al_leignn.errors import StructureError
from al_leignn.model.graph import Graph, build_graph
from al_leignn.model.verlet import VerletList


def distances(graph: Graph) -> list[list[float]]:
    """Sorted edge lengths of each atom."""
    lengths = graph.vectors(graph.neighbours()).norm(dim=2)
    return [sorted(row[row < 100.0].tolist()) for row in lengths]


def same(a: Graph, b: Graph) -> bool:
    return all(len(x) == len(y) and np.allclose(x, y, atol=1e-9) for x, y in zip(distances(a), distances(b), strict=True))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), pbc=st.sampled_from([(True, True, True), (True, False, True), (False, False, False)]))
def test_every_step_gives_the_edges_of_a_new_search(seed: int, pbc: tuple[bool, bool, bool]) -> None:
    """Atoms diffuse, are wrapped, shifted by lattice vectors, and the cell shears and breathes."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Si", cubic=True)
    atoms.pbc = pbc
    lists = VerletList(3.5, (14,), skin=0.6)
    for _ in range(12):
        atoms.positions += rng.normal(scale=0.04, size=(8, 3))
        if rng.random() < 0.4:
            atoms.wrap()
        if rng.random() < 0.4:
            atoms.positions += (rng.integers(-2, 3, size=(8, 3)) * atoms.pbc) @ atoms.cell.array
        if rng.random() < 0.4:
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.01, size=(3, 3))), scale_atoms=True)
        assert same(lists.graph(atoms), build_graph(atoms, 3.5, (14,)))
    assert lists.searches < 12


def test_small_steps_need_one_search_and_wrapping_none() -> None:
    atoms = bulk("Si", cubic=True)
    lists = VerletList(4.0, (14,), skin=0.5)
    for step in range(10):
        atoms.positions += [0.02, 0.0, 0.0]
        atoms.wrap()
        lists.graph(atoms)
        assert lists.searches == (1 if step * 0.02 < 0.25 else 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.set_atomic_numbers([14] * 7 + [8]),
        lambda a: a.set_pbc(False),
        lambda a: a.pop(),
        lambda a: a.set_cell(a.cell.array * 1.4, scale_atoms=True),
        lambda a: a.set_cell(a.cell.array * 0.7, scale_atoms=True),
    ],
)
def test_another_structure_needs_a_new_search(change: Callable[[Atoms], object]) -> None:
    atoms = bulk("Si", cubic=True)
    lists = VerletList(4.0, (8, 14), skin=0.5)
    lists.graph(atoms)
    change(atoms)
    assert same(lists.graph(atoms), build_graph(atoms, 4.0, (8, 14)))
    if len(atoms) < 8 or not atoms.pbc.all() or 8 in atoms.numbers or atoms.cell.volume < 150:
        assert lists.searches == 2


def test_bad_positions_are_refused_after_good_ones() -> None:
    atoms = bulk("Si", cubic=True)
    lists = VerletList(4.0, (14,), skin=0.5)
    lists.graph(atoms)
    atoms.positions[0] = np.nan
    with pytest.raises(StructureError, match="not finite"):
        lists.graph(atoms)


def test_without_skin_every_call_searches() -> None:
    atoms = bulk("Si", cubic=True)
    lists = VerletList(4.0, (14,), skin=0.0)
    for _ in range(3):
        lists.graph(atoms)
    assert lists.searches == 3
