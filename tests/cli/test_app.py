"""The command line as users meet it: real processes, exit codes, and nothing written when something is wrong."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomlkit
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.io import write

SLOW_TO_LOAD = ("torch", "pymatgen", "fireworks", "matplotlib", "pandas", "scipy", "ase.io", "jaxtyping", "asyncio", "tomlkit")
AL = Path(sys.executable).with_name("al-leignn")


def al(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [AL, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=120, env=os.environ | environment
    )


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture
def silicon(tmp_path: Path) -> Path:
    write(tmp_path / "Si.cif", bulk("Si", cubic=True))
    return tmp_path


def test_init_and_check(silicon: Path) -> None:
    made = al("init", "Si.cif", "--temperature", "400", cwd=silicon)
    assert made.returncode == 0, made.stderr
    assert "next: al-leignn check Si" in made.stdout
    assert "temperatures = [400.0]" in (silicon / "Si" / "campaign.toml").read_text()
    checked = al("check", "Si", "--json", cwd=silicon)
    assert checked.returncode == 0, checked.stderr
    found = json.loads(checked.stdout)
    assert found["missing"] == []
    assert found["estimate"]["labels"] > 20
    assert "Si8" in found["structures"][0]


@pytest.mark.parametrize(
    ("name", "atoms"),
    [
        ("slab.extxyz", fcc111("Al", (1, 1, 4), vacuum=7.0, periodic=False)),
        ("molecule.xyz", molecule("CH4")),
        ("one.cif", bulk("Al")),
    ],
)
def test_slab_molecule_and_single_atom_cells_are_welcome(tmp_path: Path, name: str, atoms: Atoms) -> None:
    atoms.info.clear()
    write(tmp_path / name, atoms)
    assert al("init", name, "--dir", "c", cwd=tmp_path).returncode == 0
    checked = al("check", "c", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "ready" in checked.stdout


def test_check_notes_too_few_plane_waves(tmp_path: Path) -> None:
    """For carbon and oxygen, which need many; not for silicon, nor where there are enough."""
    for name, ecut, noted in (("CO2", 300, True), ("CO2", 500, False), ("Si2", 200, False)):
        folder = f"{name}-{ecut}"
        write(tmp_path / f"{folder}.xyz", molecule("CO2") if name == "CO2" else Atoms("Si2", [[0, 0, 0], [0, 0, 2.2]]))
        assert al("init", f"{folder}.xyz", "--dir", folder, cwd=tmp_path).returncode == 0
        path = tmp_path / folder / "campaign.toml"
        config = tomlkit.parse(path.read_text())
        config["labeller"]["ecut"] = float(ecut)
        path.write_text(tomlkit.dumps(config))
        notes = json.loads(al("check", folder, "--json", cwd=tmp_path).stdout)["notes"]
        assert any("few plane waves for C, O" in note for note in notes) is noted


def test_an_element_without_paw_data_is_named(tmp_path: Path) -> None:
    write(tmp_path / "U.cif", bulk("U", "bcc", a=3.5))
    assert al("init", "U.cif", cwd=tmp_path).returncode == 0
    checked = al("check", "U", cwd=tmp_path)
    assert checked.returncode == 2
    assert "U" in checked.stdout.split("MISSING")[1]
    before = snapshot(tmp_path)
    run = al("run", "U", cwd=tmp_path)
    assert run.returncode != 0
    assert "Traceback" not in run.stderr
    assert snapshot(tmp_path) == before


def test_bad_structures_leave_nothing_behind(silicon: Path) -> None:
    (silicon / "empty.cif").write_text("")
    (silicon / "binary.cif").write_bytes(bytes(range(256)))
    before = snapshot(silicon)
    for name, word in (("missing.cif", "no such file"), ("empty.cif", "empty"), ("binary.cif", "binary")):
        refused(al("init", name, cwd=silicon), word, name)
    refused(al("init", "Si.cif", "--labeller", "wien2k", cwd=silicon), "wien2k", "gpaw, ase, external or mailbox")
    refused(al("init", "Si.cif", "--temperature", "-5", cwd=silicon), "temperatures.0", "greater than 0", "-5")
    refused(al("init", "Si.cif", "--temperature", "nan", cwd=silicon), "temperatures.0", "nan")
    refused(al("init", "Si.cif", "--labeller", "external", "--command", "dft 'oops", cwd=silicon), "--command", "quotation")
    assert snapshot(silicon) == before


def test_init_refuses_a_folder_in_use(silicon: Path) -> None:
    (silicon / "Si").mkdir()
    (silicon / "Si" / "thesis.tex").write_text("precious")
    before = snapshot(silicon)
    refused(al("init", "Si.cif", cwd=silicon), "already here", "--dir")
    assert snapshot(silicon) == before


def test_a_misspelt_key_is_named_with_its_nearest(silicon: Path) -> None:
    al("init", "Si.cif", cwd=silicon)
    path = silicon / "Si" / "campaign.toml"
    path.write_text(path.read_text().replace("target_force_error", "target_force_eror"))
    before = snapshot(silicon)
    for command in ("check", "run", "status"):
        refused(al(command, "Si", cwd=silicon), "converge.target_force_eror", "did you mean 'target_force_error'", str(path))
    assert snapshot(silicon) == before


def test_no_campaign_here(tmp_path: Path) -> None:
    for command in ("check", "run", "status", "history", "report"):
        refused(al(command, cwd=tmp_path), "no campaign here", "al-leignn init")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_said_and_survived(silicon: Path) -> None:
    disk = silicon / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", disk]).returncode != 0:
        pytest.skip("this machine does not let root mount")
    try:
        result = al("init", "Si.cif", "--dir", disk / "Si", cwd=silicon)
        refused(result, "cannot be written", "No space left")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a read-only folder needs root (and root ignores permissions)")
def test_a_read_only_folder_is_said(silicon: Path) -> None:
    al("init", "Si.cif", cwd=silicon)
    place = silicon / "readonly"
    place.mkdir()
    if subprocess.run(["mount", "--bind", "-o", "ro", silicon / "Si", place]).returncode != 0:
        pytest.skip("this machine does not let root mount")
    try:
        refused(al("run", place, cwd=silicon), "read-only", str(place))
        refused(al("init", "Si.cif", "--dir", place / "x", cwd=silicon), "Read-only")
    finally:
        subprocess.run(["umount", place], check=True)


def test_the_second_runner_is_refused_and_told_who_is_first(silicon: Path) -> None:
    al("init", "Si.cif", cwd=silicon)
    # A labeller that takes its time keeps the first runner busy.
    path = silicon / "Si" / "campaign.toml"
    text = path.read_text().split("[labeller]")
    after = text[1].split("[model]", 1)[1]
    slow = '[labeller]\ntype = "external"\ncommand = ["sh", "-c", "sleep 60", "{input}", "{output}"]\n[model]'
    path.write_text(text[0] + slow + after)
    first = subprocess.Popen([AL, "run", "Si"], cwd=silicon, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (silicon / "Si" / "iterations" / "000" / "select").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        refused(al("run", "Si", cwd=silicon), f"process {first.pid}", "al-leignn run")
        status = al("status", "Si", "--json", cwd=silicon)
        assert json.loads(status.stdout)["running"]
    finally:
        first.terminate()
        assert first.wait(timeout=30) == 128 + 15


def test_schema_is_json_schema(tmp_path: Path) -> None:
    schema = json.loads(al("schema", cwd=tmp_path).stdout)
    assert "explore" in schema["properties"]


@pytest.mark.parametrize("command", ["--help", "status", "check"])
def test_answers_at_once(command: str, emt_campaign: Path, repository: Path, tmp_path: Path) -> None:
    """Told by what is loaded, for times on a busy machine prove nothing; benchmarks/start_up.py measures them."""
    # The calculator of the other campaign is loaded to be checked, and with it scipy.
    unstarted = shutil.copytree(repository / "workflows" / "silicon_cluster", tmp_path / "Si")
    words = {"--help": [], "status": [str(emt_campaign)], "check": [str(unstarted)]}[command]
    code = f"""
import sys
sys.argv = ["al-leignn", {command!r}, *{words}]
from al_leignn.cli.app import main
try:
    main()
except SystemExit:
    pass
print([name for name in {SLOW_TO_LOAD} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert len(result.stdout.splitlines()) > 3
    assert result.stdout.splitlines()[-1] == "[]", result.stdout + result.stderr
