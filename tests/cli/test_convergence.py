"""al-leignn converge with real GPAW on two atoms: recommends, plots, pays nothing twice, and names what cannot be converged."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from al_leignn.campaign.convergence import Point, Series

AL = Path(sys.executable).with_name("al-leignn")
CONFIG = """
name = "Si"
structures = ["Si.extxyz"]
[labeller]
type = "gpaw"
ecut = 150.0
kpts = [2, 2, 2]
"""


def al(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(AL), *map(str, words)], capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_a_study_recommends_and_is_paid_once(tmp_path: Path) -> None:
    write(tmp_path / "Si.extxyz", bulk("Si"))
    (tmp_path / "campaign.toml").write_text(CONFIG)
    words = (
        "converge",
        tmp_path,
        "--cutoff",
        "100",
        "--cutoff",
        "150",
        "--cutoff",
        "250",
        "--kpt-spacing",
        "1.0",
        "--kpt-spacing",
        "0.6",
    )
    done = al(*words, "--force-error", "0.2", "--plot", tmp_path / "c.png", "--json")
    assert done.returncode == 0, done.stderr
    cutoffs, grids = json.loads(done.stdout)
    assert [p["setting"] for p in cutoffs["points"]] == ["ecut = 100", "ecut = 150", "ecut = 250"]
    assert cutoffs["points"][-1]["force_max"] == 0.0
    errors = [p["force_max"] for p in cutoffs["points"]]
    assert errors[0] > errors[1] > 0
    assert cutoffs["recommended"] == next(p["setting"] for p in cutoffs["points"] if p["force_max"] <= 0.2)
    assert grids["points"][-1]["value"] > grids["points"][0]["value"]
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    again = al(*words)
    assert again.stderr.count("from the label store") == 5
    assert "in [labeller] of campaign.toml" in again.stdout


def test_a_labeller_without_cutoff_is_refused(emt_campaign: Path) -> None:
    refused = al("converge", emt_campaign)
    assert refused.returncode == 2
    assert "no cutoff" in refused.stderr


def series(errors: list[float]) -> Series:
    points = [Point(f"ecut = {n}", float(n), error, error / 2, 0.0, None, 1.0) for n, error in enumerate([*errors, 0.0])]
    return Series("ecut", "eV", points, 0.01)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([0.1, 0.02, 0.005, 0.001], "ecut = 2"),
        ([0.1, 0.005, 0.02, 0.001], "ecut = 3"),
        ([0.001, 0.0001], "ecut = 0"),
        ([0.1, 0.02], None),
    ],
)
def test_recommended_is_good_and_so_is_all_that_is_finer(errors: list[float], expected: str | None) -> None:
    found = series(errors).recommended
    assert (None if found is None else found.setting) == expected
    assert np.isfinite(series(errors).force_error)


def test_a_figure_of_no_known_kind_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    write(tmp_path / "Si.extxyz", bulk("Si"))
    (tmp_path / "campaign.toml").write_text(CONFIG)
    before = sorted(tmp_path.rglob("*"))
    refused = al("converge", tmp_path, "--plot", tmp_path / "c.foo")
    assert refused.returncode == 2
    assert ".png, .svg, .pdf" in refused.stderr
    assert sorted(tmp_path.rglob("*")) == before
