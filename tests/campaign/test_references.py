"""A campaign with AIMD to agree with: validated and decided by it, reopened when it is longer; bad references refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ase.io import read, write

from al_leignn.campaign.aimd import AimdOptions, run_aimd
from al_leignn.campaign.history import History
from al_leignn.campaign.item import model_file
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.preflight import preflight
from al_leignn.campaign.stages import run_stage
from al_leignn.campaign.state import scan
from al_leignn.campaign.validation import Conditions, md_like
from al_leignn.core import DecisionKind, Stage, StageRequest
from al_leignn.errors import ConfigError, DataError, StaleArtifactError
from al_leignn.model.committee import Committee
from al_leignn.validate.trajectory import read_trajectory

CONVERGE = """
[converge]
references = ["aimd-300K.extxyz"]
observables = ["rdf", "energy", "forces"]
target_force_error = 10
target_energy_error = 10
accurate_share = 0.01
tolerances = {rdf = 0.9, energy = 0.5, forces = 0.9}
"""


def quiet(done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def campaign(emt_campaign: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The second iteration of a campaign, validated and decided anew beside a reference; and the decision after it."""
    folder = tmp_path_factory.mktemp("references") / "Cu3Al"
    shutil.copytree(emt_campaign, folder)
    layout = Layout.open(folder)
    run_aimd(layout, None, folder / "aimd-300K.extxyz", AimdOptions(300.0, 0.3, 0.05, timestep_fs=3.0), quiet)
    for path in (layout.config_file, layout.iteration(2) / "campaign.toml"):
        path.write_text(path.read_text().replace("[converge]\nstability_ps = 0.3\n", CONVERGE))
    for stage in (Stage.VALIDATE, Stage.CONVERGE):
        shutil.rmtree(layout.stage(2, stage))
        run_stage(layout, StageRequest(stage, 2, 0))
    return layout


def test_md_of_the_committee_is_compared_with_it(campaign: Layout) -> None:
    (found,) = History(campaign).result(Stage.VALIDATE, 2)["observables"]
    assert found["reference"] == "aimd-300K.extxyz"
    assert found["verdict"] in ("equivalent", "undecided", "different")
    (whole,) = json.loads((campaign.item(StageRequest(Stage.VALIDATE, 2, 0)) / "observables.json").read_text())
    assert whole["outcome"] == found["verdict"]
    assert {o["kind"] for o in whole["observables"]} == {"rdf", "energy", "forces"}
    assert whole["md"]["length_ps"] > 3 * whole["reference"]["length_ps"]
    assert not list(campaign.root.glob("**/reference-*.extxyz"))


def test_md_runs_as_the_reference_did(campaign: Layout, tmp_path: Path) -> None:
    """With its time step, thermostat and temperature: mean kinetic energies then differ by chance alone."""
    reference = read_trajectory(campaign.root / "aimd-300K.extxyz")
    committee = Committee.load(model_file(campaign.root))
    md = md_like(reference, committee, tmp_path / "md.extxyz", Conditions(ps=0.3), seed=1, progress=quiet)
    assert md.bath == reference.bath == (300.0, 3.0)
    assert (md.thermostat, md.friction_per_ps) == (reference.thermostat, reference.friction_per_ps)


def test_the_decision_rests_on_it(campaign: Layout) -> None:
    (found,) = History(campaign).result(Stage.VALIDATE, 2)["observables"]
    decision = scan(campaign).decision
    assert decision is not None
    assert decision.conditions["observables"] is (found["verdict"] == "equivalent")
    assert found["words"] in decision.reason or decision.kind is DecisionKind.CONVERGED


def test_a_longer_reference_reopens_the_campaign(campaign: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "copy")
    shutil.copytree(campaign.root, layout.root)
    assert scan(layout).finished
    run_aimd(layout, None, layout.root / "aimd-300K.extxyz", AimdOptions(300.0, 0.33, 0.05, timestep_fs=3.0), quiet)
    assert not scan(layout).finished
    with pytest.raises(StaleArtifactError, match=r"reference aimd-300K\.extxyz changed"):
        run_stage(layout, StageRequest(Stage.VALIDATE, 2, 0))


def edited(change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_text(change(path.read_text()))

    return apply


def of_gold(path: Path) -> None:
    images = read(path, ":")
    for atoms in images:
        atoms.symbols[0] = "Au"
    write(path, images)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (Path.unlink, "is not there"),
        (of_gold, "another composition"),
        (edited(lambda text: text.replace("level=id:", "level=id:0")), "another level of theory"),
        (edited(lambda text: text.replace("time_fs=", "clock=")), "how much time"),
        (edited(lambda text: text.replace("target_temperature=", "t=").replace("temperature=", "T=").replace("momenta", "p")),
         "does not tell its temperature"),
        (edited(lambda text: "".join(text.splitlines(keepends=True)[: 6 * 8])), "too few"),
    ],
)  # fmt: skip
def test_a_reference_that_cannot_serve_is_refused_before_the_run(
    campaign: Layout, tmp_path: Path, damage: Callable[[Path], None], what: str
) -> None:
    for name in ("campaign.toml", "given.extxyz", "aimd-300K.extxyz"):
        shutil.copy(campaign.root / name, tmp_path / name)
    shutil.copytree(campaign.root / "structures", tmp_path / "structures")
    preflight(tmp_path, 1)
    damage(tmp_path / "aimd-300K.extxyz")
    with pytest.raises((DataError, ConfigError)) as refused:
        preflight(tmp_path, 1)
    assert what in refused.value.what
    assert "aimd-300K.extxyz" in refused.value.where
    assert refused.value.fix or "not there" in what


def test_config_names_the_kinds_of_observables(campaign: Layout, tmp_path: Path) -> None:
    (tmp_path / "campaign.toml").write_text(campaign.config_file.read_text().replace('"rdf", "energy"', '"rdx", "energy"'))
    with pytest.raises(ConfigError) as refused:
        Layout(tmp_path).config()
    assert "converge.observables" in refused.value.what
    assert "'rdf'" in refused.value.fix
