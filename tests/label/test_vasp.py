"""VASP, without VASP: inputs by pymatgen, outputs in the real format, each wrong one named."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar

from al_leignn.config import MailboxConfig, VaspConfig
from al_leignn.core import Frame, LabelFailure, Labels, Origin, Reason
from al_leignn.errors import WaitingError
from al_leignn.label.base import LabelOutcome, label_frame, make_labeller
from al_leignn.label.output import NotALabelError
from al_leignn.label.rescue import LADDER
from al_leignn.label.vasp import VaspLabeller, by_species
from al_leignn.labelstore import LabelStore
from al_leignn.units import GPA
from tests.label.vasprun import vasprun

STRESS_KBAR = np.array([[10.0, 1.0, 2.0], [1.0, -5.0, 3.0], [2.0, 3.0, 7.0]])


def mixed() -> Frame:
    """Species in turns, so that VASP's order is another one."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.05, seed=2)
    return Frame.of(atoms, Origin("given"))


def config(**keys: Any) -> VaspConfig:
    return VaspConfig.model_validate({"kpts": (2, 2, 2)} | keys)


def written(folder: Path, frame: Frame, rung: int = 0, **keys: Any) -> Incar:
    folder.mkdir(exist_ok=True)
    VaspLabeller(config(**keys)).write_input(frame, folder, rung)
    return Incar.from_file(str(folder / "INCAR"))


def answer(folder: Path, frame: Frame, free: tuple[float, ...] = (-10.0, -27.5), **keys: Any) -> np.ndarray:
    """Write a vasprun.xml for the frame; the forces in its own order."""
    forces = np.random.default_rng(1).normal(size=(len(frame.atoms), 3))
    order = by_species(frame.atoms)
    (folder / "vasprun.xml").write_text(vasprun(frame.atoms[order], free, forces[order], STRESS_KBAR, **keys))
    return forces


def test_inputs_say_what_was_asked(tmp_path: Path) -> None:
    frame = mixed()
    incar = written(tmp_path, frame, kpts=(2, 3, 4), ecut=450.0, smearing_ev=0.2)
    assert (incar["ENCUT"], incar["ISMEAR"], incar["SIGMA"], incar["ISYM"], incar["ISPIN"]) == (450.0, -1, 0.2, 0, 1)
    assert (str(incar["GGA"]).upper(), incar["NSW"]) == ("PE", 0)
    kpoints = Kpoints.from_file(str(tmp_path / "KPOINTS"))
    assert tuple(kpoints.kpts[0]) == (2, 3, 4)
    assert kpoints.style.name == "Gamma"
    poscar = Poscar.from_file(str(tmp_path / "POSCAR"))
    assert poscar.site_symbols == ["Na", "Cl"]
    expected = frame.atoms[by_species(frame.atoms)]
    np.testing.assert_allclose(poscar.structure.cart_coords, expected.positions, atol=1e-9)
    assert list(tmp_path.glob("POTCAR*"))


def test_functional_dispersion_and_u_reach_the_incar(tmp_path: Path) -> None:
    frame = mixed()
    scan = written(tmp_path / "a", frame, xc="r2SCAN")
    assert str(scan["METAGGA"]).upper() == "R2SCAN"
    assert "GGA" not in scan
    assert str(written(tmp_path / "b", frame, xc="PBEsol")["GGA"]).upper() == "PS"
    more = written(tmp_path / "c", frame, dispersion="d3", hubbard_u={"Na": 2.0}, spin=True, incar={"LREAL": "Auto"})
    assert (more["IVDW"], more["LDAU"], more["LDAUL"], more["LDAUU"]) == (12, True, [2, 0], [2.0, 0.0])
    assert more["ISPIN"] == 2
    assert more["LREAL"] == "Auto"


def test_rescue_changes_the_route_never_the_theory(tmp_path: Path) -> None:
    incars = [dict(written(tmp_path / str(rung), mixed(), rung)) for rung in range(len(LADDER))]
    for incar in incars:
        for route in ("ALGO", "NELM"):
            incar.pop(route)
    assert all(incar == incars[0] for incar in incars)


def test_results_are_in_our_order_units_and_signs(tmp_path: Path) -> None:
    frame = mixed()
    forces = answer(tmp_path, frame)
    labels = VaspLabeller(config()).read_output(frame, tmp_path)
    assert isinstance(labels, Labels)
    assert labels.energy == pytest.approx(-27.5)
    np.testing.assert_allclose(labels.forces, forces, atol=1e-7)
    assert labels.stress is not None
    np.testing.assert_allclose(labels.stress / (0.1 * GPA), [-10.0, 5.0, -7.0, -3.0, -2.0, -1.0], atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"nelm": 2}, Reason.UNCONVERGED),
        ({"gga": "PS"}, Reason.WRONG_LEVEL),
        ({"ecut": 400.0}, Reason.WRONG_LEVEL),
        ({"version": "5.4.4"}, Reason.WRONG_LEVEL),
    ],
)
def test_outputs_of_another_level_are_named(tmp_path: Path, keys: dict[str, Any], reason: Reason) -> None:
    answer(tmp_path, mixed(), **keys)
    assert reason_of(mixed(), tmp_path) is reason


def test_outputs_of_another_frame_and_damage_are_named(tmp_path: Path) -> None:
    frame = mixed()
    answer(tmp_path, frame)
    moved, strained = frame.atoms.copy(), frame.atoms.copy()
    moved.positions[0, 0] += 0.01
    strained.set_cell(np.asarray(strained.cell) * 1.01, scale_atoms=True)
    swapped = Atoms(frame.atoms)
    swapped.numbers = swapped.numbers[::-1]
    for atoms, reason in ((moved, Reason.OTHER_FRAME), (strained, Reason.WRONG_CELL), (swapped, Reason.OTHER_FRAME)):
        assert reason_of(Frame("x", atoms, frame.origin), tmp_path) is reason
    path = tmp_path / "vasprun.xml"
    whole = path.read_text()
    for content, reason in ((whole[: len(whole) // 2], Reason.BAD_OUTPUT), ("", Reason.NO_OUTPUT), ("no xml", Reason.BAD_OUTPUT)):
        path.write_text(content)
        assert reason_of(frame, tmp_path) is reason
    path.unlink()
    assert reason_of(frame, tmp_path) is Reason.NO_OUTPUT


def reason_of(frame: Frame, folder: Path) -> Reason:
    with pytest.raises(NotALabelError) as caught:
        VaspLabeller(config()).read_output(frame, folder)
    return caught.value.reason


def test_a_file_cut_off_anywhere_is_no_label(tmp_path: Path) -> None:
    answer(tmp_path, mixed())
    path = tmp_path / "vasprun.xml"
    whole = path.read_text().rstrip()
    for end in range(1, len(whole), 211):
        path.write_text(whole[:end])
        assert reason_of(mixed(), tmp_path) is Reason.BAD_OUTPUT, whole[:end][-80:]


# --- the whole way, with a code that speaks VASP's files -------------------------------------------------------

CODE = Path(__file__).with_name("vasp_code.py")


def alloy() -> Frame:
    """Species in turns that effective medium theory knows; gold comes after copper for VASP, before it by name."""
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[::2] = "Au"
    atoms.set_cell(np.asarray(atoms.cell) @ [[1.05, 0.02, 0.0], [0.0, 1.0, 0.03], [0.0, 0.0, 0.98]], scale_atoms=True)
    atoms.rattle(0.1, seed=4)
    return Frame.of(atoms, Origin("given"))


def run(fault: str, folder: Path, **keys: Any) -> LabelOutcome:
    labeller = VaspLabeller(config(command=[sys.executable, str(CODE), fault], **keys))
    return label_frame(labeller, alloy(), LabelStore(folder / "labels"), folder / "scratch")


@pytest.mark.parametrize(("fault", "rung"), [("none", 0), ("hard", 2)])
def test_a_run_gives_energy_forces_and_stress_of_the_frame(tmp_path: Path, fault: str, rung: int) -> None:
    outcome = run(fault, tmp_path)
    assert isinstance(outcome.result, Labels), outcome.result
    assert outcome.rung == rung
    atoms = alloy().atoms
    atoms.calc = EMT()
    assert outcome.result.energy == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-6)
    np.testing.assert_allclose(outcome.result.forces, atoms.get_forces(), atol=1e-6)
    assert outcome.result.stress is not None
    np.testing.assert_allclose(outcome.result.stress, atoms.get_stress(), atol=1e-8)
    assert np.abs(atoms.get_stress()).min() > 1e-4, "every component tells its sign"
    assert not list((tmp_path / "scratch").iterdir())


FAULTS = {
    "unconverged": Reason.UNCONVERGED,
    "crash": Reason.CRASHED,
    "hang": Reason.TIMEOUT,
    "no output": Reason.NO_OUTPUT,
    "empty": Reason.NO_OUTPUT,
    "truncated": Reason.BAD_OUTPUT,
    "no forces": Reason.INCOMPLETE,
    "stars": Reason.NOT_FINITE,
    "wrong order": Reason.WRONG_ATOMS,
    "two exchanged": Reason.OTHER_FRAME,
    "other frame": Reason.OTHER_FRAME,
    "wrong cell": Reason.WRONG_CELL,
    "other functional": Reason.WRONG_LEVEL,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_a_run_is_named(tmp_path: Path, fault: str) -> None:
    outcome = run(fault, tmp_path, **({"time_limit_s": 1.0} if fault == "hang" else {}))
    assert isinstance(outcome.result, LabelFailure), outcome.result
    assert outcome.result.reason is FAULTS[fault], outcome.result
    assert outcome.rung == (len(LADDER) - 1 if fault == "unconverged" else 0)
    assert not len(LabelStore(tmp_path / "labels"))


def test_a_mailbox_leaves_inputs_of_vasp_and_finds_the_frame_of_an_output(tmp_path: Path) -> None:
    box = MailboxConfig.model_validate({"folder": str(tmp_path / "box"), "code": {"type": "vasp", "kpts": (2, 2, 2)}})
    labeller = make_labeller(box)
    with pytest.raises(WaitingError):
        labeller.label(alloy(), tmp_path)
    folder = tmp_path / "box" / "out" / alloy().uid
    assert {"INCAR", "KPOINTS", "POSCAR", "frame.extxyz"} <= {path.name for path in folder.iterdir()}
    subprocess.run([sys.executable, CODE, "none"], cwd=folder, check=True)
    back = tmp_path / "box" / "in" / "back"
    back.mkdir()
    for name in ("INCAR", "KPOINTS", "POSCAR"):
        shutil.copy(folder / name, back)
    shutil.copy(folder / "POSCAR", back / "CONTCAR")
    (folder / "vasprun.xml").rename(back / "some.xml")
    labels = labeller.label(alloy(), tmp_path)
    assert isinstance(labels, Labels)
    atoms = alloy().atoms
    atoms.calc = EMT()
    np.testing.assert_allclose(labels.forces, atoms.get_forces(), atol=1e-6)


def test_what_is_missing_is_named() -> None:
    missing = VaspLabeller(config(command=["no-vasp-here"])).check([14])
    assert any("no-vasp-here" in what for what in missing)
    assert any("POTCAR" in what for what in missing)


def test_level_is_theory_not_route() -> None:
    level = VaspLabeller(config()).level
    for route in ({"time_limit_s": 1.0}, {"max_scf": 7}, {"command": ["srun", "vasp"]}, {"potcar_dir": "/x"}):
        assert VaspLabeller(config(**route)).level == level
    theories: list[dict[str, Any]] = [{"xc": "PBEsol"}, {"ecut": 500.0}, {"incar": {"LREAL": "Auto"}}, {"version": "5"}]
    assert len({VaspLabeller(config(**theory)).level for theory in theories} | {level}) == len(theories) + 1
