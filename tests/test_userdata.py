"""Files as users have them: written by the programs themselves, by ASE or by dpdata; read back in our units and signs."""

import gzip
import importlib
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from al_leignn.core import LabelledFrame
from al_leignn.errors import DataError
from al_leignn.units import GPA, voigt
from al_leignn.userdata import DataKeys, frame_name, read_user_data, read_user_files

OUTPUTS = Path(__file__).parent / "dft_outputs"


def _copper(seed: int) -> Atoms:
    """A strained, rattled triclinic cell: no component of the stress vanishes or equals another."""
    rng = np.random.default_rng(seed)
    atoms: Atoms = bulk("Cu", "fcc", a=3.5, cubic=True)
    atoms.symbols[0] = "Al"
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.06, 0.06, (3, 3))), scale_atoms=True)
    atoms.rattle(0.1, rng=rng)
    atoms.calc = EMT()
    atoms.get_stress()
    return atoms


@pytest.fixture(scope="module")
def images() -> list[Atoms]:
    return [_copper(seed) for seed in range(4)]


def _same(frames: list[LabelledFrame], images: list[Atoms], digits: float = 1e-6) -> None:
    """Same labels in the same order of frames and, per frame, the same set of atoms with their forces."""
    assert len(frames) == len(images)
    for frame, atoms in zip(frames, images, strict=True):
        assert frame.labels.energy == pytest.approx(atoms.calc.results["energy"], abs=digits)
        assert frame.labels.stress == pytest.approx(atoms.calc.results["stress"], abs=digits)
        # Readers may sort atoms by element; a force goes with its species.
        ours = sorted(zip(frame.frame.atoms.numbers, np.round(frame.labels.forces, 4).tolist(), strict=True))
        theirs = sorted(zip(atoms.numbers, np.round(atoms.calc.results["forces"], 4).tolist(), strict=True))
        for a, b in zip(ours, theirs, strict=True):
            assert a[0] == b[0]
            assert a[1] == pytest.approx(b[1], abs=2e-4)


def _with_keys(atoms: Atoms, prefix: str) -> Atoms:
    bare: Atoms = atoms.copy()
    bare.info |= {f"{prefix}energy": atoms.calc.results["energy"], f"{prefix}stress": atoms.calc.results["stress"]}
    bare.arrays[f"{prefix}forces"] = atoms.calc.results["forces"]
    return bare


# --- extended XYZ and ASE ----------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", [None, gzip.open, lzma.open], ids=["plain", "gz", "xz"])
@pytest.mark.parametrize("prefix", ["REF_", "dft_"])
def test_extended_xyz(images: list[Atoms], tmp_path: Path, opener: Callable[..., object] | None, prefix: str) -> None:
    path = tmp_path / "data.extxyz"
    write(path, [_with_keys(atoms, prefix) for atoms in images])
    if opener is not None:
        path = path.with_suffix(".extxyz.gz" if opener is gzip.open else ".extxyz.xz")
        with opener(path, "wb") as file:  # type: ignore[attr-defined]
            file.write(path.with_suffix("").read_bytes())
    _same(read_user_data(path, "x", DataKeys(*(prefix + key for key in DataKeys("energy", "forces", "stress")))), images)


def test_the_given_keys_win_over_stored_results(images: list[Atoms], tmp_path: Path) -> None:
    both = images[0].copy()
    both.calc = images[0].calc
    both.info["REF_energy"] = 5.0
    write(tmp_path / "a.extxyz", both)
    assert read_user_data(tmp_path / "a.extxyz", "x")[0].labels.energy == 5.0


def test_of_stored_energies_the_force_consistent_one_is_taken_unless_the_other_is_named(tmp_path: Path) -> None:
    atoms = bulk("Al")
    atoms.calc = SinglePointCalculator(atoms, energy=-3.0, free_energy=-3.2, forces=np.zeros((1, 3)))
    write(tmp_path / "a.traj", atoms)
    assert read_user_data(tmp_path / "a.traj", "x")[0].labels.energy == -3.2
    assert read_user_data(tmp_path / "a.traj", "x", DataKeys(energy="energy"))[0].labels.energy == -3.0


def test_ase_databases(images: list[Atoms], tmp_path: Path) -> None:
    with connect(tmp_path / "results.db") as rows:
        for atoms in images:
            rows.write(atoms)
    _same(read_user_data(tmp_path / "results.db", "x"), images)
    with connect(tmp_path / "keys.db") as rows:
        for atoms in images:
            found = atoms.calc.results
            data = {"REF_forces": found["forces"], "REF_stress": found["stress"]}
            rows.write(atoms.copy(), key_value_pairs={"REF_energy": found["energy"]}, data=data)
    _same(read_user_data(tmp_path / "keys.db", "x"), images)


# --- DeePMD ------------------------------------------------------------------------------------------------


def _write_deepmd(folder: Path, images: list[Atoms], fmt: str) -> None:
    """By dpdata, in DeePMD's convention: virials in eV, positive under pressure."""
    dpdata = pytest.importorskip("dpdata")
    names = sorted({str(symbol) for atoms in images for symbol in atoms.symbols})
    periodic = bool(images[0].pbc.all())
    data = {
        "atom_names": names,
        "atom_numbs": [int((np.array(images[0].get_chemical_symbols()) == name).sum()) for name in names],
        "atom_types": np.array([names.index(symbol) for symbol in images[0].get_chemical_symbols()]),
        "orig": np.zeros(3),
        "coords": np.array([atoms.positions for atoms in images]),
        "cells": np.array([atoms.cell.array if periodic else 100.0 * np.eye(3) for atoms in images]),
        "energies": np.array([atoms.calc.results["energy"] for atoms in images]),
        "forces": np.array([atoms.calc.results["forces"] for atoms in images]),
    }
    if periodic:
        data["virials"] = np.array([-atoms.get_volume() * atoms.get_stress(voigt=False) for atoms in images])
    else:
        data["nopbc"] = True
    system = dpdata.LabeledSystem(data=data)
    if fmt == "deepmd/npy/mixed":
        dpdata.MultiSystems(system).to_deepmd_npy_mixed(str(folder))
    else:
        system.to(fmt, str(folder))


@pytest.mark.parametrize("fmt", ["deepmd/npy", "deepmd/raw", "deepmd/npy/mixed"])
def test_deepmd_sets(images: list[Atoms], tmp_path: Path, fmt: str) -> None:
    _write_deepmd(tmp_path / "set", images, fmt)
    frames = read_user_data(tmp_path / "set", "x")
    _same(frames, images, 1e-5)
    for frame, atoms in zip(frames, images, strict=True):
        assert frame.frame.atoms.cell.cellpar() == pytest.approx(atoms.cell.cellpar(), abs=1e-4)
        assert frame.frame.atoms.pbc.all()


def test_a_tree_of_deepmd_systems_keeps_their_names_and_blocks(images: list[Atoms], tmp_path: Path) -> None:
    _write_deepmd(tmp_path / "tree" / "cold", images[:2], "deepmd/npy")
    _write_deepmd(tmp_path / "tree" / "hot", images[2:], "deepmd/npy")
    frames = read_user_data(tmp_path / "tree", "x")
    assert [frame_name(f) for f in frames] == ["tree/cold #0", "tree/cold #1", "tree/hot #0", "tree/hot #1"]
    assert len({f.frame.origin.block for f in frames[:2]} & {f.frame.origin.block for f in frames[2:]}) == 0


def test_deepmd_molecules_are_not_periodic(tmp_path: Path) -> None:
    atoms = molecule("CO")
    atoms.calc = EMT()
    atoms.get_forces()
    _write_deepmd(tmp_path / "set", [atoms], "deepmd/npy")
    frame = read_user_data(tmp_path / "set", "x")[0]
    assert not frame.frame.atoms.pbc.any()
    assert frame.labels.stress is None
    assert frame.frame.atoms.get_distance(0, 1) == pytest.approx(atoms.get_distance(0, 1), abs=1e-5)


def test_a_deepmd_set_without_elements_is_refused(images: list[Atoms], tmp_path: Path) -> None:
    _write_deepmd(tmp_path / "set", images, "deepmd/npy")
    (tmp_path / "set" / "type_map.raw").unlink()
    with pytest.raises(DataError, match=r"which elements(.|\n)*type_map\.raw"):
        read_user_data(tmp_path / "set", "x")


def test_without_dpdata_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "type.raw").write_text("0\n")
    monkeypatch.setitem(sys.modules, "dpdata", None)
    for path in (tmp_path / "set", OUTPUTS / "cp2k_small.out"):
        with pytest.raises(DataError, match=r'pip install "al-leignn\[dpdata\]"'):
            read_user_data(path, "x")


# --- outputs of DFT programs -------------------------------------------------------------------------------


def _work(a: LabelledFrame, b: LabelledFrame) -> float:
    """Energy difference that forces and stress foretell, by the trapezoidal rule along scaled coordinates, eV."""
    first, second = a.frame.atoms, b.frame.atoms
    mean = 0.5 * (first.cell.array + second.cell.array)
    shift = second.get_scaled_positions() - first.get_scaled_positions()
    strain = np.linalg.solve(mean, second.cell.array - first.cell.array)
    assert a.labels.stress is not None
    assert b.labels.stress is not None
    virial = 0.5 * (first.get_volume() * a.labels.stress + second.get_volume() * b.labels.stress)
    forces = 0.5 * (a.labels.forces + b.labels.forces)
    six = voigt(strain + strain.T) / 2 * np.array([1, 1, 1, 2, 2, 2])
    return float(virial @ six - np.sum(forces * ((shift - np.round(shift)) @ mean)))


@pytest.mark.parametrize("program", ["pw", "cp2k"])
def test_energies_forces_and_stress_of_an_output_agree_with_one_another(program: str) -> None:
    if program == "cp2k":
        pytest.importorskip("dpdata")
    a, b = (read_user_data(OUTPUTS / f"{program}_{size}.out", "x")[0] for size in ("small", "large"))
    assert a.frame.atoms.pbc.all()
    change = b.labels.energy - a.labels.energy
    assert abs(change) > 4e-3
    assert change == pytest.approx(_work(a, b), rel=0.08)


OUTCAR = """\
 vasp.6.4.2 20Jul23 (build Jan  1 2024 00:00:00) complex
 POTCAR:    PAW_PBE Al 04Jan2001
   VRHFIN =Al: s2p1
   ions per type =               2
   ISPIN  =      1    spin polarized calculation?
   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=      4
   number of dos      NEDOS =    301   number of ions     NIONS =      2
 k-points in reciprocal lattice and weights: Automatic mesh
   0.00000000  0.00000000  0.00000000       1.000
--------------------------------------- Iteration      1(   1)  ---------------------------------------
  FORCE on cell =-STRESS in cart. coord.  units (eV):
  Direction    XX          YY          ZZ          XY          YZ          ZX
  in kB     -10.00000    20.00000   -30.00000     4.00000     5.00000     6.00000
      direct lattice vectors                 reciprocal lattice vectors
     4.000000000  0.000000000  0.000000000     0.250000000  0.000000000  0.000000000
     0.000000000  4.000000000  0.000000000     0.000000000  0.250000000  0.000000000
     0.000000000  0.000000000  4.000000000     0.000000000  0.000000000  0.250000000
 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.100000     -0.200000      0.300000
      2.00000      2.00000      2.00000        -0.100000      0.200000     -0.300000
 -----------------------------------------------------------------------------------
  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =        -7.50000000 eV

  energy  without entropy=       -7.40000000  energy(sigma->0) =       -7.45000000
"""


def test_vasp_outcar_gives_the_free_energy_and_turns_the_stress(tmp_path: Path) -> None:
    (tmp_path / "OUTCAR").write_text(OUTCAR)
    frame = read_user_data(tmp_path / "OUTCAR", "x")[0]
    assert frame.frame.atoms.get_chemical_symbols() == ["Al", "Al"]
    assert frame.labels.energy == -7.5  # the forces are this one's derivative, not the extrapolated one's
    assert frame.labels.forces[0] == pytest.approx([0.1, -0.2, 0.3])
    # VASP prints pressures in kbar, in the order xx yy zz xy yz zx.
    assert frame.labels.stress == pytest.approx(-0.1 * GPA * np.array([-10, 20, -30, 5, 6, 4]))


def test_outputs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "OUTCAR").write_text(OUTCAR)
        paths.append(tmp_path / run / "OUTCAR")
    frames = read_user_files(paths, "x")
    assert [frame_name(f) for f in frames] == ["a/OUTCAR #0", "b/OUTCAR #0"]
    assert len({f.frame.origin.block for f in frames}) == 2


VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="program" type="string">vasp </i></generator>
 <atominfo><atoms>1</atoms><array name="atoms"><set><rc><c>Al</c><c>1</c></rc></set></array></atominfo>
 <kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>
 <structure name="initialpos"><crystal><varray name="basis"><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray></crystal>
  <varray name="positions"><v>0 0 0</v></varray></structure>
 <calculation>
  <scstep><energy><i name="e_fr_energy">-3.70</i><i name="e_0_energy">-3.68</i></energy></scstep>
  <structure><crystal><varray name="basis"><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray><i name="volume">64</i></crystal>
   <varray name="positions"><v>0 0 0</v></varray></structure>
  <varray name="forces"><v>0.1 0.2 0.3</v></varray>
  <varray name="stress"><v>-10 4 6</v><v>4 20 5</v><v>6 5 -30</v></varray>
  <energy><i name="e_fr_energy">-3.70</i><i name="e_0_energy">-3.68</i></energy>
 </calculation>
</modeling>
"""


def test_vasprun_agrees_with_outcar_on_signs(tmp_path: Path) -> None:
    (tmp_path / "vasprun.xml").write_text(VASPRUN)
    frame = read_user_data(tmp_path / "vasprun.xml", "x")[0]
    assert frame.labels.energy == pytest.approx(-3.7)
    assert frame.labels.stress == pytest.approx(-0.1 * GPA * np.array([-10, 20, -30, 5, 6, 4]))


# --- what cannot be read -----------------------------------------------------------------------------------


def test_frames_without_labels_are_counted_and_named(images: list[Atoms], tmp_path: Path) -> None:
    write(tmp_path / "a.extxyz", [images[0], images[1].copy(), images[2], *(images[3].copy() for _ in range(7))])
    with pytest.raises(DataError) as caught:
        read_user_data(tmp_path / "a.extxyz", "x")
    assert "8 of 10 frame(s) cannot be used: no energy and no forces" in str(caught.value)
    assert "a.extxyz, frames 1, 3, 4, 5, 6 and 3 more" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("missing.extxyz", None, "no such file"),
        ("empty.extxyz", b"", "cannot be read|no frames"),
        ("noise.extxyz", bytes(range(256)), "cannot be read"),
        ("cut.extxyz.xz", lzma.compress(b"1\n\nH 0 0 0\n")[:-8], "cannot be read"),
        ("short.extxyz", b"2\nProperties=species:S:1:pos:R:3 REF_energy=1\nH 0 0 0\n", "cannot be read"),
    ],
)
def test_files_that_are_no_data(tmp_path: Path, name: str, content: bytes | None, word: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=word) as caught:
        read_user_data(tmp_path / name, "x")
    assert name in str(caught.value)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no DeePMD set"):
        read_user_data(tmp_path, "x")


def test_reading_extended_xyz_loads_no_dpdata(images: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.extxyz", images)
    monkeypatch.setitem(sys.modules, "dpdata", None)
    importlib.import_module("al_leignn.userdata")
    assert len(read_user_data(tmp_path / "a.extxyz", "x")) == 4
