"""Quantum ESPRESSO and CP2K for real: what they are asked, that forces and stress are derivatives of the energy, and faults."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from al_leignn.config import Cp2kConfig, EspressoConfig
from al_leignn.core import Frame, LabelFailure, Labels, Origin, Reason
from al_leignn.errors import LabellerError
from al_leignn.label.base import Labeller, label_frame, make_labeller
from al_leignn.label.files import FileLabeller
from al_leignn.label.rescue import LADDER
from al_leignn.labelstore import LabelStore

needs_qe = pytest.mark.skipif(shutil.which("pw.x") is None, reason="needs pw.x: apt-get install quantum-espresso")
needs_cp2k = pytest.mark.skipif(shutil.which("cp2k") is None, reason="needs cp2k: apt-get install cp2k")


def frame_of(atoms: Atoms, rattle: float = 0.0) -> Frame:
    atoms = atoms.copy()
    if rattle:
        atoms.rattle(rattle, seed=5)
    return Frame.of(atoms, Origin("given"))


def hydrogen_crystal() -> Atoms:
    """Two molecules in a skew periodic cell: the cheapest thing with forces and stress."""
    cell = np.array([[3.6, 0.0, 0.0], [0.3, 3.8, 0.0], [0.0, 0.2, 4.4]])
    places = [[0.1, 0.0, 0.2], [0.2, 0.1, 0.98], [1.9, 1.8, 2.4], [1.7, 2.0, 3.1]]
    return Atoms("H4", positions=places, cell=cell, pbc=True)


def espresso(**keys: Any) -> EspressoConfig:
    base = {"pseudopotentials": {"Si": "Si.pbe-rrkj.UPF", "H": "H.pbe-kjpaw.UPF"}, "ecut": 200.0, "density_factor": 4.0}
    return EspressoConfig.model_validate(base | {"vacuum": 2.5, "time_limit_s": 200.0} | keys)


def cp2k(**keys: Any) -> Cp2kConfig:
    base = {"basis": "SZV-MOLOPT-SR-GTH", "cutoff": 2000.0, "rel_cutoff": 400.0, "vacuum": 2.5, "time_limit_s": 250.0}
    return Cp2kConfig.model_validate(base | keys)


CODES = [
    pytest.param(espresso(kpts=(2, 2, 2)), frame_of(bulk("Si"), rattle=0.1), marks=needs_qe, id="quantum-espresso"),
    pytest.param(cp2k(), frame_of(hydrogen_crystal()), marks=needs_cp2k, id="cp2k"),
]
Config = EspressoConfig | Cp2kConfig


def labels(labeller: Labeller, frame: Frame, folder: Path, rung: int = 0, *, tight: bool = False) -> Labels:
    scratch = folder / f"attempt-{len(list(folder.iterdir()))}"
    scratch.mkdir()
    result = labeller.label(frame, scratch, rung, tight=tight)
    assert isinstance(result, Labels), result
    return result


def displaced(frame: Frame, size: float) -> Frame:
    atoms = frame.atoms.copy()
    atoms.positions[0, 1] += size
    return Frame("moved", atoms, frame.origin)


def sheared(frame: Frame, size: float) -> Frame:
    atoms = frame.atoms.copy()
    strain = np.eye(3)
    strain[0, 1] = strain[1, 0] = size / 2
    strain[2, 2] += size
    atoms.set_cell(np.asarray(atoms.cell) @ strain, scale_atoms=True)
    return Frame("strained", atoms, frame.origin)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("config", "frame"), CODES)
def test_forces_and_stress_are_derivatives_of_the_energy(config: Config, frame: Frame, tmp_path: Path) -> None:
    # A denser basis: at a fixed number of plane waves, energies of strained cells would not follow the stress.
    fine = {"ecut": 400.0} if isinstance(config, EspressoConfig) else {"cutoff": 3000.0}
    labeller = make_labeller(config.model_copy(update=fine))
    centre = labels(labeller, frame, tmp_path, tight=True)
    step = 0.01

    def slope(change: Callable[[Frame, float], Frame]) -> float:
        up, down = (labels(labeller, change(frame, size), tmp_path, tight=True).energy for size in (step, -step))
        return (up - down) / (2 * step)

    assert -slope(displaced) == pytest.approx(centre.forces[0, 1], abs=0.01)
    assert centre.stress is not None
    assert slope(sheared) / frame.atoms.get_volume() == pytest.approx(centre.stress[5] + centre.stress[2], abs=0.002)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("config", "frame"), CODES)
def test_every_rung_finds_the_same_ground_state(config: Config, frame: Frame, tmp_path: Path) -> None:
    labeller = make_labeller(config)
    easy, *gentle = (labels(labeller, frame, tmp_path, rung) for rung in range(len(LADDER)))
    for result in gentle:
        assert result.energy == pytest.approx(easy.energy, abs=1e-3)
        np.testing.assert_allclose(result.forces, easy.forces, atol=5e-3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("config", "frame"), CODES)
def test_unconverged_is_a_failure_after_the_whole_ladder(config: Config, frame: Frame, tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels")
    outcome = label_frame(make_labeller(config.model_copy(update={"max_scf": 1})), frame, store, tmp_path / "scratch")
    assert isinstance(outcome.result, LabelFailure)
    assert (outcome.result.reason, outcome.rung) == (Reason.UNCONVERGED, len(LADDER) - 1)
    assert len(store) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("config", "frame"), CODES)
def test_outputs_that_are_no_label_are_named(config: Config, frame: Frame, tmp_path: Path) -> None:
    labeller = make_labeller(config)
    assert isinstance(labeller, FileLabeller)
    good = labels(labeller, frame, tmp_path)
    folder = tmp_path / "attempt-0"
    output = folder / ("output.txt" if isinstance(config, EspressoConfig) else "cp2k.out")
    whole = output.read_text()
    assert labeller.read_output(frame, folder).energy == good.energy
    for content, reason in (
        (whole[: len(whole) // 2], Reason.BAD_OUTPUT),
        ("", Reason.NO_OUTPUT),
        (whole.replace("PBE", "B88"), Reason.WRONG_LEVEL),
        (
            whole.replace("convergence has been achieved", "convergence NOT achieved").replace("run conv", "run NOT conv"),
            Reason.UNCONVERGED,
        ),
    ):
        output.write_text(content)
        assert reason_of(labeller, frame, folder) is reason
    output.write_text(whole)
    assert reason_of(labeller, displaced(frame, 0.01), folder) is Reason.OTHER_FRAME
    assert reason_of(labeller, sheared(frame, 0.01), folder) is Reason.WRONG_CELL


def reason_of(labeller: FileLabeller[Any], frame: Frame, folder: Path) -> Reason:
    from al_leignn.label.output import NotALabelError

    with pytest.raises(NotALabelError) as caught:
        labeller.read_output(frame, folder)
    return caught.value.reason


@pytest.mark.slow
@pytest.mark.parametrize("config", [pytest.param(espresso(), marks=needs_qe), pytest.param(cp2k(), marks=needs_cp2k)])
def test_molecule_without_a_cell(config: Config, tmp_path: Path) -> None:
    result = labels(make_labeller(config), frame_of(molecule("H2")), tmp_path)
    assert result.stress is None
    np.testing.assert_allclose(result.forces[0], -result.forces[1], atol=0.02)
    np.testing.assert_allclose(result.forces[:, :2], 0.0, atol=0.01)


@needs_qe
@pytest.mark.slow
def test_no_stress_but_smeared_metal_forces_follow_the_free_energy(tmp_path: Path) -> None:
    copper = bulk("Cu", cubic=True)[:2]
    copper.set_cell([2.7, 2.7, 5.4])
    copper.positions = [[0, 0, 0], [1.35, 1.35, 2.2]]
    config = espresso(pseudopotentials={"Cu": "Cu.pbe-kjpaw.UPF"}, ecut=300.0, density_factor=6.0, smearing_ev=0.5)
    frame, labeller = frame_of(copper), make_labeller(config)

    def along(size: float) -> Frame:
        atoms = frame.atoms.copy()
        atoms.positions[1, 2] += size
        return Frame("moved", atoms, frame.origin)

    centre = labels(labeller, frame, tmp_path, tight=True)
    up, down = (labels(labeller, along(size), tmp_path, tight=True).energy for size in (0.01, -0.01))
    assert -(up - down) / 0.02 == pytest.approx(centre.forces[1, 2], abs=0.02)


# --- what is asked, and what is missing ----------------------------------------------------------------------


def written(labeller: Labeller, frame: Frame, folder: Path, rung: int = 0) -> str:
    assert isinstance(labeller, FileLabeller)
    folder.mkdir(exist_ok=True)
    labeller.write_input(frame, folder, rung)
    return next(path for path in folder.iterdir() if path.suffix in (".in", ".inp")).read_text()


@pytest.mark.parametrize(("config", "frame"), CODES)
def test_rescue_changes_the_route_never_the_theory(config: Config, frame: Frame, tmp_path: Path) -> None:
    route = ("electron_maxstep", "mixing", "diagonalization", "MAX_SCF", "ALPHA", "ADDED_MOS", "NBUFFER")
    texts = [
        [
            line
            for line in written(make_labeller(config), frame, tmp_path, rung).splitlines()
            if not line.strip().startswith(route)
        ]
        for rung in range(len(LADDER))
    ]
    assert all(text == texts[0] for text in texts)


@pytest.mark.parametrize(("config", "frame"), CODES)
def test_level_is_theory_and_version_not_route(config: Config, frame: Frame) -> None:
    level = make_labeller(config).level
    routes: list[dict[str, Any]] = [{"time_limit_s": 1.0}, {"max_scf": 7}, {"mixer_beta": 0.1}]
    for route in routes:
        assert make_labeller(config.model_copy(update=route)).level == level, route
    theories: list[dict[str, Any]] = [
        {"kpts": (3, 1, 1)},
        {"kpt_spacing": 0.2},
        {"spin": True},
        {"smearing_ev": 0.2},
        {"dispersion": "d3"},
        {"xc": "BLYP"},
    ]
    assert len({make_labeller(config.model_copy(update=theory)).level for theory in theories} | {level}) == len(theories) + 1


@pytest.mark.parametrize("config", [espresso(command=["no-such-code"]), cp2k(command=["no-such-code"])])
def test_a_code_that_is_not_there(config: Config, tmp_path: Path) -> None:
    labeller = make_labeller(config)
    assert any("apt-get install" in what for what in labeller.check([14]))
    with pytest.raises(LabellerError, match="no-such-code"):
        _ = labeller.level
    (tmp_path / "scratch").mkdir()
    result = labeller.label(frame_of(bulk("Si")), tmp_path / "scratch")
    assert isinstance(result, LabelFailure)
    assert result.reason is Reason.CRASHED


@needs_qe
def test_check_names_missing_and_foreign_pseudopotentials() -> None:
    assert make_labeller(espresso()).check([1, 14]) == []
    (absent,) = make_labeller(espresso(pseudopotentials={"Si": "Si.none.UPF"})).check([14])
    assert "Si.none.UPF" in absent
    (foreign,) = make_labeller(espresso(pseudopotentials={"Si": "Si.pz-vbc.UPF"})).check([14])
    assert "PBE" in foreign
    (unnamed,) = make_labeller(espresso()).check([79])
    assert "Au" in unnamed


@needs_cp2k
def test_check_names_missing_basis_sets() -> None:
    assert make_labeller(cp2k()).check([1, 14]) == []
    missing = make_labeller(cp2k(basis="QZV9P-NONE")).check([14])
    assert missing == ["QZV9P-NONE of Si in BASIS_MOLOPT"]


@pytest.mark.parametrize(("gamma", "grid", "expected"), [(True, (2, 3, 4), "0 0 0"), (False, (2, 3, 4), "1 0 1")])
def test_quantum_espresso_grids_are_those_of_gpaw(gamma: bool, grid: tuple[int, int, int], expected: str, tmp_path: Path) -> None:
    text = written(make_labeller(espresso(kpts=grid, gamma_centred=gamma)), frame_of(bulk("Si")), tmp_path)
    assert f"2 3 4  {expected}" in text


def test_cp2k_starts_from_the_moments_of_its_atoms(tmp_path: Path) -> None:
    frame = frame_of(molecule("H2O"))
    assert "MAGNETIZATION" not in written(make_labeller(cp2k()), frame, tmp_path)
    text = written(make_labeller(cp2k(spin=True, initial_moments={"O": 2.0})), frame, tmp_path)
    assert [line.split()[1] for line in text.splitlines() if "MAGNETIZATION" in line] == ["1.0", "2.0"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "config", [pytest.param(espresso(), marks=needs_qe), pytest.param(cp2k(basis="DZVP-MOLOPT-SR-GTH"), marks=needs_cp2k)]
)
def test_an_isolated_atom_keeps_its_moment(config: Config, tmp_path: Path) -> None:
    """Spin-polarised from the moment of the free atom, hydrogen lies 0.9 to 1.2 eV lower than paired (PBE)."""
    atom = frame_of(Atoms("H", positions=[[2.5, 2.6, 2.7]], cell=[5.0, 5.2, 5.4], pbc=True))
    alone = config.model_copy(update={"spin": True, "initial_moments": {"H": 1.0}, "smearing_ev": 0.02})
    paired = config.model_copy(update={"smearing_ev": 0.02})
    polarised, closed = (labels(make_labeller(one), atom, tmp_path).energy for one in (alone, paired))
    assert 0.7 < closed - polarised < 1.5


@needs_cp2k
@pytest.mark.slow
def test_why_cp2k_gives_up_is_told(tmp_path: Path) -> None:
    atom = frame_of(Atoms("H", cell=[5.0, 5.0, 5.0], pbc=True))  # in a basis of one function
    result = make_labeller(cp2k()).label(atom, tmp_path)
    assert isinstance(result, LabelFailure)
    assert (result.reason, result.detail) == (Reason.CRASHED, "exit 1: Extra MOs (ADDED_MOS) are required for smearing")


def test_cp2k_grids_contain_gamma_where_asked(tmp_path: Path) -> None:
    frame = frame_of(bulk("Si"))
    text = written(make_labeller(cp2k(kpts=(2, 3, 4))), frame, tmp_path)
    assert "SCHEME MACDONALD 2 3 4 0.25 0 0.125" in text
    text = written(make_labeller(cp2k(kpts=(2, 3, 4), gamma_centred=False)), frame, tmp_path)
    assert "SCHEME MACDONALD 2 3 4 0 0 0" in text
