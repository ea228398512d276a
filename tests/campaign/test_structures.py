"""Structure files as users have them: the good work, the bad are refused in words."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.io import write

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.structures import read_starts, read_structures
from al_leignn.config import AseConfig, CampaignConfig
from al_leignn.errors import StructureError

MIXED = """data_mixed
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
A1 Ga 0 0 0 0.5
A2 Al 0 0 0 0.5
B1 As 0.25 0.25 0.25 1.0
"""


def slab() -> Atoms:
    atoms: Atoms = fcc111("Al", (1, 1, 4), vacuum=8.0)
    atoms.info.clear()  # the builder's notes do not fit into a file
    return atoms


@pytest.mark.parametrize(
    ("name", "atoms"),
    [
        ("s.cif", bulk("NaCl", "rocksalt", a=5.64)),
        ("POSCAR", bulk("Si", cubic=True)),
        ("s.extxyz", molecule("CH3CH2OH")),
        ("slab.extxyz", slab()),
        ("one.extxyz", bulk("Al")),
    ],
)
def test_good_files(tmp_path: Path, name: str, atoms: Atoms) -> None:
    write(tmp_path / name, atoms)
    (found,) = read_structures(tmp_path / name)
    assert sorted(found.symbols) == sorted(atoms.symbols)
    assert (found.pbc == atoms.pbc).all() or name in ("s.cif", "POSCAR")
    if atoms.pbc.all():
        assert found.cell.volume == pytest.approx(atoms.cell.volume, rel=1e-4)


def bad_files(tmp_path: Path) -> dict[str, str]:
    good = tmp_path / "good.cif"
    write(good, bulk("Si", cubic=True))
    (tmp_path / "empty.cif").write_text("")
    (tmp_path / "binary.cif").write_bytes(b"\x7fELF\0\0\0\x01" * 50)
    (tmp_path / "truncated.cif").write_text(good.read_text()[:200])
    (tmp_path / "prose.xyz").write_text("Dear diary,\nno atoms today\n")
    (tmp_path / "mixed.cif").write_text(MIXED)
    twice = bulk("Si", cubic=True) + Atoms("Si", positions=[bulk("Si", cubic=True).positions[2]])
    write(tmp_path / "twice.extxyz", twice)
    write(tmp_path / "nan.extxyz", Atoms("H2", positions=[[0, 0, 0], [np.nan, 0, 0]]))
    write(tmp_path / "flat.extxyz", Atoms("Si", cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True))
    return {
        "missing.cif": "no such file",
        "empty.cif": "empty",
        "binary.cif": "binary",
        "truncated.cif": "not a readable CIF",
        "prose.xyz": "not a readable structure",
        "mixed.cif": "partially occupied",
        "twice.extxyz": "Å apart",
        "nan.extxyz": "not finite",
        "flat.extxyz": "volume",
    }


def test_bad_files_are_refused_in_words(tmp_path: Path) -> None:
    for name, words in bad_files(tmp_path).items():
        with pytest.raises(StructureError) as caught:
            read_structures(tmp_path / name)
        assert words in str(caught.value), name
        assert name in str(caught.value)


def test_a_campaign_wants_one_structure_per_file(tmp_path: Path) -> None:
    """Walkers are counted by files, so that two structures in one of them would be half explored."""
    write(tmp_path / "two.extxyz", [bulk("Cu"), bulk("Cu", a=3.7)])
    with pytest.raises(StructureError, match=r"(?s)2 structures instead of one.*two\.extxyz"):
        read_starts(Layout(tmp_path), CampaignConfig(name="two", structures=["two.extxyz"], labeller=AseConfig(calculator="emt")))
