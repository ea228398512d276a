"""Neighbours agree with ASE's in every kind of cell; frames that are no matter are recognised."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule

from al_leignn.select.geometry import is_unphysical

SYSTEMS = {
    "primitive": bulk("Cu"),
    "crystal": bulk("NaCl", "rocksalt", 5.64, cubic=True),
    "oblique": Atoms("Si2", [[0, 0, 0], [1, 1, 2]], cell=[[4, 0, 0], [3, 3, 0], [1, -2, 5]], pbc=True),
    "slab": fcc111("Al", (2, 2, 3), vacuum=5.0),
    "slab without third vector": graphene(),
    "molecule": molecule("C6H6"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_sane_structures_pass(name: str) -> None:
    assert not is_unphysical(SYSTEMS[name], 0.6)


def test_a_single_atom_passes() -> None:
    assert not is_unphysical(Atoms("H"), 0.6)


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]),
        Atoms("H2", [[0, 0, 0], [0, 0, 1e7]]),
        Atoms("H2", [[0, 0, 0], [0, 0, 0]]),
        Atoms("H2", [[0, 0, 0], [0, 0, 0.3]]),
        Atoms("Cu2", [[0, 0, 0.1], [0, 0, 9.9]], cell=[10, 10, 10], pbc=True),  # close through the boundary
        Atoms("Cu", cell=[10, 10, 1.0], pbc=True),  # too close to its own image
        Atoms("Cu", cell=[10, 10, 1e-3], pbc=True),
        Atoms("Cu", cell=[[5, 0, 0], [0, 5, 0], [5, 5, 0]], pbc=True),  # no volume
        Atoms("Cu", cell=[np.inf, 5, 5], pbc=True),
    ],
)
def test_what_is_no_matter_is_recognised(atoms: Atoms) -> None:
    assert is_unphysical(atoms, 0.6)


def test_the_factor_sets_the_limit() -> None:
    dimer = Atoms("H2", [[0, 0, 0], [0, 0, 0.5]])  # 0.81 of twice 0.31 Å
    assert not is_unphysical(dimer, 0.8)
    assert is_unphysical(dimer, 0.82)
