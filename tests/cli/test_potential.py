"""`train` and `evaluate` as users meet them: a whole small fit, its log, figures and test; and what they refuse."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write

from tests.waiting import wait_for

AL = Path(sys.executable).with_name("al-leignn")
SETTINGS = "[model]\ncutoff = 4.0\nfeatures = 4\nlayers = 1\nradial = 4\n[train]\nmembers = 2\nsteps = 40\nbatch_atoms = 16\n"


def al(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([AL, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=250)


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


def _frames(count: int, seed: int) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        atoms = bulk("Cu", "fcc", a=3.6 * (1 + 0.02 * rng.normal()), cubic=True)
        atoms.rattle(0.08, rng=rng)
        atoms.calc = EMT()
        atoms.get_stress()
        atoms.get_forces()
        images.append(atoms)
    return images


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with data and a model, and what `train` said."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "fast.toml").write_text(SETTINGS)
    images = _frames(20, 1)
    images[3].calc.results["forces"] = np.full((4, 3), 1e3)
    images[4].calc.results["energy"] = images[4].calc.results["free_energy"] = np.nan
    write(folder / "train.extxyz", images)
    write(folder / "test.extxyz", _frames(5, 2))
    words = ["train", "train.extxyz", "--test", "test.extxyz", "--config", "fast.toml", "--out", "m.safetensors"]
    return folder, al(*words, "--log", "fit.jsonl", "--plot", "figures", "--json", cwd=folder)


def test_a_fit_is_logged_drawn_and_tested(fitted: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, result = fitted
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["frames"] == 18
    assert found["set_aside_names"] == {
        "force beyond 100 eV/Å": ["train.extxyz #3"],
        "energy is not a finite number": ["train.extxyz #4"],
    }
    assert found["test"]["committee"]["n_frames"] == 5
    lines = [json.loads(line) for line in (folder / "fit.jsonl").read_text().splitlines()]
    assert {line["member"] for line in lines} == {0, 1}
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    assert {"train_energy_mae_mev_per_atom", "train_force_mae_mev_per_angstrom", "train_stress_mae_gpa"} <= set(lines[0])
    drawn = sorted(path.name for path in (folder / "figures").iterdir())
    assert drawn == [f"{name}.{kind}" for name in ("errors", "learning", "parity") for kind in ("pdf", "png")]
    # Piped, it says one line a stage.
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["read", "train"]
    assert "meV/atom" in result.stderr


def test_evaluate_draws_and_agrees_with_the_test_of_the_fit(fitted: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, result = fitted
    again = al("evaluate", "m.safetensors", "test.extxyz", "--plot", "again", "--json", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["committee"]["force_mae"] == pytest.approx(
        json.loads(result.stdout)["test"]["committee"]["force_mae"], rel=1e-4
    )
    assert len(list((folder / "again").glob("*.png"))) == 2


def test_an_element_the_model_has_not_seen_is_named(fitted: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = fitted
    foreign = _frames(1, 5)[0]
    results = foreign.calc.results
    foreign.symbols[0] = "Ag"
    foreign.calc = EMT()
    foreign.calc.results = results
    write(folder / "silver.extxyz", foreign)
    refused(al("evaluate", "m.safetensors", "silver.extxyz", cwd=folder), "does not know Ag", "it knows Cu")


def test_labels_that_are_no_numbers_are_not_judged(fitted: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = fitted
    refused(al("evaluate", "m.safetensors", "train.extxyz", cwd=folder), "1 frame(s) are not finite", "train.extxyz #4")


def test_bad_input_is_refused_before_anything_is_written(
    fitted: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder, _ = fitted
    before = sorted(path.name for path in folder.iterdir())
    shared = [*read(folder / "test.extxyz", ":"), read(folder / "train.extxyz", 7)]
    write(tmp_path / "shared.extxyz", shared)
    words = ["train", "train.extxyz", "--config", "fast.toml", "--out", "n.safetensors"]
    refused(
        al(*words, "--test", tmp_path / "shared.extxyz", cwd=folder), "1 test frame(s) are training frames too", "train.extxyz #7"
    )
    write(tmp_path / "atom.extxyz", Atoms("Cu", calculator=EMT()))
    refused(al(*words, "--isolated-atoms", tmp_path / "atom.extxyz", cwd=folder), "no isolated atom with an energy")
    write(tmp_path / "bare.extxyz", bulk("Cu"))
    refused(al("train", tmp_path / "bare.extxyz", "--out", "n.safetensors", cwd=folder), "1 of 1 frame(s)", "no forces")
    refused(al(*words[:-1], "m.safetensors", cwd=folder), "the output file exists")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_killed_fit_goes_on_by_the_same_command(fitted: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    folder, _ = fitted
    data, settings = str(folder / "train.extxyz"), str(folder / "fast.toml")
    command = ["train", data, "--config", settings, "--out", "m.safetensors", "--log", "fit.jsonl", "--workers", "1"]
    process = subprocess.Popen([AL, *command], cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        worker = wait_for(
            lambda: [p for p in psutil.Process(process.pid).children(recursive=True) if "spawn_main" in str(p.cmdline())],
            "a trainer",
        )
        wait_for((tmp_path / "m.safetensors.restart" / "member-0.safetensors").exists, "its first checkpoint")
    finally:
        process.kill()
        process.wait()
    psutil.wait_procs(worker, timeout=20)
    assert not [p for p in worker if p.is_running()], "a trainer outlived the command"
    assert not (tmp_path / "m.safetensors").exists()
    first = entries(tmp_path / "fit.jsonl", member=0)

    result = al(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "m.safetensors").read_bytes() == (folder / "m.safetensors").read_bytes()
    # With the times of before the kill: nothing was fitted twice.
    assert first
    assert entries(tmp_path / "fit.jsonl", member=0)[: len(first)] == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.jsonl", "m.safetensors"]


def entries(log: Path, member: int) -> list[dict[str, float]]:
    return [line for line in map(json.loads, log.read_text().splitlines()) if line["member"] == member]


def test_one_frame_is_enough(fitted: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    write(tmp_path / "one.extxyz", _frames(1, 3))
    words = ["--config", str(fitted[0] / "fast.toml"), "--out", "m.safetensors", "--plot", "figures", "--json"]
    result = al("train", "one.extxyz", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["frames"] == 1


def test_md_goes_on_after_a_kill_as_if_there_had_been_none(
    fitted: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    write(tmp_path / "cu.extxyz", bulk("Cu", "fcc", a=3.6, cubic=True))
    model = fitted[0] / "m.safetensors"
    command = ("md", model, tmp_path / "cu.extxyz", "--temperature", "300", "--stride", "5", "--seed", "3")
    whole = al(*command, "--steps", "3000", "--out", "whole.extxyz.xz", "--json", cwd=tmp_path)
    assert json.loads(whole.stdout)["steps"] == 3000, whole.stderr
    words = [str(AL), *map(str, command), "--steps", "3000", "--out", "parts.extxyz.xz"]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    state = tmp_path / "parts.extxyz.xz.restart"
    seen: set[int] = set()
    # The first state is that before the first step.
    while len(seen) < 3 and process.poll() is None:
        if state.exists():
            seen.add(state.stat().st_mtime_ns)
        time.sleep(0.002)
    process.kill()
    assert process.wait() < 0, "it ended before it could be killed"
    refused(al(*command, "--steps", "3000", "--out", "parts.extxyz.xz", cwd=tmp_path), "exists", "--resume")
    rest = al(*command, "--steps", "3000", "--out", "parts.extxyz.xz", "--resume", "--json", cwd=tmp_path)
    assert 0 < json.loads(rest.stdout)["frames"] < 600, rest.stderr
    assert (tmp_path / "parts.extxyz.xz").read_bytes() == (tmp_path / "whole.extxyz.xz").read_bytes()


def test_md_refuses_what_it_would_not_feel(fitted: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    write(tmp_path / "cu.extxyz", bulk("Cu", "fcc", a=3.6, cubic=True))
    command = ("md", fitted[0] / "m.safetensors", "cu.extxyz", "--temperature", "300", "--steps", "10")
    refused(al(*command, "--pressure", "5", cwd=tmp_path), "pressure", "npt")
    assert not (tmp_path / "md.extxyz").exists()
