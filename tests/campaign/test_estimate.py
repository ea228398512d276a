"""What a label is foretold to cost, beside what labels have cost (benchmarks/label/estimate.py measures them)."""

import itertools
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from al_leignn.campaign.estimate import label_memory, label_seconds
from al_leignn.config import CampaignConfig, GpawConfig

FOLDER = Path(__file__).parents[2] / "benchmarks" / "label"
MEASURED = json.loads((FOLDER / "results" / "estimate.json").read_text())


def config(**keys: Any) -> CampaignConfig:
    return CampaignConfig(name="x", structures=["x"], labeller=GpawConfig.model_validate(keys))


@pytest.fixture(scope="module")
def cases() -> dict[str, tuple[Atoms, dict[str, Any]]]:
    found: dict[str, tuple[Atoms, dict[str, Any]]] = runpy.run_path(str(FOLDER / "estimate.py"))["CASES"]
    return found


@pytest.mark.parametrize("name", MEASURED)
def test_time_and_memory_are_within_a_factor_of_two_of_the_measured(
    cases: dict[str, tuple[Atoms, dict[str, Any]]], name: str
) -> None:
    atoms, keys = cases[name]
    assert 0.5 <= label_seconds(config(**keys), atoms) / MEASURED[name]["measured_s"] <= 2.0
    assert 0.5 <= label_memory(config(**keys), atoms) / 1e9 / MEASURED[name]["measured_gb"] <= 2.0


@pytest.mark.parametrize("gamma_centred", [True, False])
@pytest.mark.parametrize("kpts", [(1, 1, 1), (2, 2, 2), (3, 3, 3), (2, 3, 4)])
def test_a_kpoint_and_its_inverse_cost_one(kpts: tuple[int, int, int], gamma_centred: bool) -> None:
    """Beside a count of the points themselves."""
    axes = [(2 * np.arange(n) + (2 - n % 2 if gamma_centred else 1) - n) / (2 * n) for n in kpts]
    points = {tuple(np.round(point, 9) % 1.0) for point in itertools.product(*axes)}
    pairs = {frozenset([point, tuple(np.round(-np.array(point), 9) % 1.0)]) for point in points}
    one, some = (label_seconds(config(kpts=k, gamma_centred=gamma_centred), bulk("Si", cubic=True)) for k in ((1, 1, 1), kpts))
    none = label_seconds(config(), Atoms("H", cell=[0.01, 0.01, 0.01], pbc=True))
    assert (some - none) / (one - none) == pytest.approx(len(pairs), rel=0.01)


@pytest.mark.parametrize("mode", ["pw", "fd"])
def test_empty_space_costs_too(mode: str) -> None:
    near, far = (config(mode=mode, vacuum=vacuum) for vacuum in (4.0, 8.0))
    assert label_seconds(far, molecule("H2O")) > 1.5 * label_seconds(near, molecule("H2O"))
    assert label_memory(far, molecule("H2O")) > 1.5 * label_memory(near, molecule("H2O"))
