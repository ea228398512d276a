"""Neighbours agree with ASE's in every kind of cell; contacts are counted in covalent radii."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.neighborlist import neighbor_list

from al_leignn.geometry import closest_contact, neighbours

SYSTEMS = {
    "primitive": bulk("Cu"),
    "crystal": bulk("NaCl", "rocksalt", 5.64, cubic=True),
    "oblique": Atoms("Si2", [[0, 0, 0], [1, 1, 2]], cell=[[4, 0, 0], [3, 3, 0], [1, -2, 5]], pbc=True),
    "slab": fcc111("Al", (2, 2, 3), vacuum=5.0),
    "slab without third vector": graphene(),
    "molecule": molecule("C6H6"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_neighbours_are_those_of_ase(name: str) -> None:
    atoms = SYSTEMS[name].copy()
    atoms.rattle(0.1, seed=1)
    atoms.positions += 7.3  # outside the cell
    ours, theirs = neighbours(atoms, 5.0), neighbor_list("ijd", atoms, 5.0)
    order, their_order = np.lexsort(ours[::-1]), np.lexsort(theirs[::-1])
    # Distances order the pairs of one i and j, up to rounding.
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_array_equal(mine[order], other[their_order])
    np.testing.assert_allclose(ours[2][order], theirs[2][their_order], atol=1e-9)


def ratio(atoms: Atoms) -> float:
    contact = closest_contact(atoms)
    return np.inf if contact is None else contact.ratio


def test_contacts_see_periodic_images_and_count_in_radii() -> None:
    assert ratio(bulk("Si", cubic=True)) == np.inf  # 2.35 Å, radii 1.11 Å
    assert ratio(molecule("H2")) == np.inf
    near = Atoms("Si2", [[0.1, 2, 2], [4.9, 2, 2]], cell=[5, 5, 5], pbc=True)
    assert ratio(near) == pytest.approx(0.2 / 2.22)
    assert ratio(Atoms("He", cell=[0.2, 9, 9], pbc=True)) == pytest.approx(0.2 / 0.56)
