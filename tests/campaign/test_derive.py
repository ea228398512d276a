"""Settings follow from the structure, and a campaign folder is made whole or not at all."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.io import write

from al_leignn.campaign.create import start_campaign
from al_leignn.campaign.derive import derive
from al_leignn.config import CampaignConfig, GpawConfig, load_config
from al_leignn.errors import CampaignError, DataError, InputError, StructureError
from al_leignn.userdata import read_user_data

NO_OPTIONS: dict[str, object] = {
    "data": [],
    "labeller": "gpaw",
    "calculator": "",
    "command": "",
    "temperatures": [],
    "seed": 0,
}


def derived(*structures: object) -> CampaignConfig:
    return derive("x", list(structures), [f"s{n}" for n in range(len(structures))]).config  # type: ignore[arg-type]


def test_small_cells_are_repeated_and_large_ones_left_alone() -> None:
    assert derived(bulk("Si", cubic=True)).explore.supercell == (1, 1, 1)
    assert derived(bulk("Si")).explore.supercell == (2, 2, 2)
    assert derived(bulk("Al")).explore.supercell == (3, 3, 3)
    assert derived(bulk("Si", cubic=True).repeat(2)).explore.supercell == (1, 1, 1)


def test_vacuum_gets_no_copies_and_one_k_point() -> None:
    slab = fcc111("Al", (2, 2, 3), vacuum=8.0)
    slab.pbc = True
    config = derived(slab)
    assert config.explore.supercell[2] == 1
    assert isinstance(config.labeller, GpawConfig)
    assert config.labeller.kpts[2] == 1
    assert config.labeller.kpts[0] > 1
    isolated = derived(molecule("CH4"))
    assert isolated.explore.supercell == (1, 1, 1)
    assert isinstance(isolated.labeller, GpawConfig)
    assert isolated.labeller.kpts == (1, 1, 1)


def test_grids_keep_the_symmetry_of_oblique_cells() -> None:
    oblique, right_angled = derived(bulk("Si")).labeller, derived(bulk("Si", cubic=True)).labeller
    assert isinstance(oblique, GpawConfig)
    assert isinstance(right_angled, GpawConfig)
    assert (oblique.gamma_centred, right_angled.gamma_centred) == (True, False)


def test_the_lightest_element_sets_the_time_step() -> None:
    assert derived(molecule("CH4")).explore.timestep_fs == 0.5
    assert derived(bulk("Si", cubic=True)).explore.timestep_fs == 2.0
    assert derived(bulk("Si", cubic=True), bulk("NaCl", "rocksalt", a=5.64)).explore.timestep_fs == 2.0
    assert 1.0 <= derived(bulk("Li", "bcc", a=3.5)).explore.timestep_fs < 1.5


def test_the_hardest_element_sets_the_cutoff() -> None:
    water = derived(molecule("H2O")).labeller
    silicon = derived(bulk("Si", cubic=True)).labeller
    assert isinstance(water, GpawConfig)
    assert isinstance(silicon, GpawConfig)
    assert water.ecut > silicon.ecut


def test_large_atoms_see_as_many_neighbours_as_small_ones() -> None:
    assert derived(bulk("Si", cubic=True)).model.cutoff == 5.0
    assert derived(molecule("CH4")).model.cutoff == 5.0
    assert derived(Atoms("Ar")).model.cutoff == 5.0
    assert derived(bulk("Na", "bcc", a=4.23)).model.cutoff == pytest.approx(7.0)  # third shell at 5.98 Å
    assert derived(bulk("Si", cubic=True), bulk("Cs", "bcc", a=6.14)).model.cutoff == pytest.approx(10.2)  # at 8.68 Å


def test_the_written_file_is_the_derived_config(tmp_path: Path) -> None:
    write(tmp_path / "Si.cif", bulk("Si", cubic=True))
    write(tmp_path / "NaCl.cif", bulk("NaCl", "rocksalt", a=5.64))
    files = [tmp_path / "Si.cif", tmp_path / "NaCl.cif"]
    folder = start_campaign(files, tmp_path / "both", **NO_OPTIONS)  # type: ignore[arg-type]
    raw = tomllib.loads((folder / "campaign.toml").read_text())
    config = CampaignConfig.model_validate(raw)
    assert config.structures == ["structures/Si.extxyz", "structures/NaCl.extxyz"]
    assert all((folder / name).is_file() for name in config.structures)
    assert "derived: for the lightest element" in (folder / "campaign.toml").read_text()


def test_nothing_is_written_when_something_is_wrong(tmp_path: Path) -> None:
    write(tmp_path / "Si.cif", bulk("Si", cubic=True))
    (tmp_path / "bad.cif").write_text("")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StructureError):
        start_campaign([tmp_path / "Si.cif", tmp_path / "bad.cif"], tmp_path / "c", **NO_OPTIONS)  # type: ignore[arg-type]
    for wrong in ({"labeller": "ase"}, {"labeller": "external"}, {"labeller": "wien2k"}, {"data": [tmp_path / "none.xyz"]}):
        with pytest.raises(InputError):
            start_campaign([tmp_path / "Si.cif"], tmp_path / "c", **(NO_OPTIONS | wrong))  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "Si.cif", bulk("Si", cubic=True))
    folder = tmp_path / "c"
    folder.mkdir()
    start_campaign([tmp_path / "Si.cif"], folder, **NO_OPTIONS)  # type: ignore[arg-type]  # empty: welcome
    text = (folder / "campaign.toml").read_text()
    with pytest.raises(CampaignError, match="already"):
        start_campaign([tmp_path / "Si.cif"], folder, **NO_OPTIONS)  # type: ignore[arg-type]
    assert (folder / "campaign.toml").read_text() == text


def test_files_of_one_name_are_all_kept(tmp_path: Path) -> None:
    for n, place in enumerate(("a", "b")):
        (tmp_path / place).mkdir()
        write(tmp_path / place / "Si.cif", bulk("Si", cubic=True, a=5.4 + 0.1 * n))
        atoms = bulk("Si", a=5.4 + 0.1 * n)
        atoms.info["REF_energy"] = float(n)
        atoms.arrays["REF_forces"] = np.zeros((2, 3))
        write(tmp_path / place / "old.extxyz", atoms)
    both = NO_OPTIONS | {"data": [tmp_path / "a" / "old.extxyz", tmp_path / "b" / "old.extxyz"]}
    files = [tmp_path / "a" / "Si.cif", tmp_path / "b" / "Si.cif"]
    folder = start_campaign(files, tmp_path / "c", **both)  # type: ignore[arg-type]
    config = load_config(folder / "campaign.toml")
    assert len(set(config.structures)) == len(set(config.data)) == 2
    assert [read_user_data(folder / name, "x")[0].labels.energy for name in config.data] == [0.0, 1.0]


def test_data_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    """Gradients where forces should be: along an MD the energy changes against them."""
    write(tmp_path / "Cu.cif", bulk("Cu", cubic=True))
    atoms, rng, images = bulk("Cu", cubic=True), np.random.default_rng(0), []
    for _ in range(20):
        atoms.positions += rng.normal(scale=0.03, size=(4, 3))
        image = atoms.copy()
        image.calc = EMT()
        image.info["REF_energy"] = image.get_potential_energy() - 16.0
        image.arrays["REF_forces"] = -image.get_forces()
        image.calc = None
        images.append(image)
    write(tmp_path / "md.extxyz", images)
    with pytest.raises(DataError, match="turn the sign of the forces"):
        start_campaign([tmp_path / "Cu.cif"], tmp_path / "c", **(NO_OPTIONS | {"data": [tmp_path / "md.extxyz"]}))  # type: ignore[arg-type]
    assert not (tmp_path / "c").exists()
