"""A campaign that labels the surroundings of the worst atom in place of whole frames."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from al_leignn.campaign.campaign import Campaign
from al_leignn.campaign.history import History
from al_leignn.campaign.layout import Layout
from al_leignn.core import Frame, Origin
from al_leignn.flow.local import run
from al_leignn.flow.watch import Silence
from al_leignn.store import write_frames

CAMPAIGN = """
name = "Cu"
structures = ["Cu.extxyz"]
[labeller]
type = "ase"
calculator = "ase.calculators.emt:EMT"
[model]
cutoff = 4.0
features = 4
layers = 1
radial = 4
[train]
members = 2
steps = 40
[seeds]
rattled = 6
strained = 0
hot = 0
[converge]
stability_ps = 0
[explore]
temperatures = [600.0]
walkers = 1
steps = 40
[select]
budget = 3
fresh = 2
trust_lo = 0.001
trust_hi = 100.0
cut_out = "{kind}"
cut_out_radius = 3.2
[budget]
iterations = 1
"""


@pytest.fixture(scope="module", params=["cluster", "cell"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, str]:
    """A finished campaign of one iteration, and the kind of its cut-outs."""
    folder = tmp_path_factory.mktemp(request.param)
    write_frames(folder / "Cu.extxyz", [Frame.of(bulk("Cu", "fcc", a=3.61, cubic=True) * 2, Origin("given"))])
    (folder / "campaign.toml").write_text(CAMPAIGN.replace("{kind}", request.param), encoding="utf-8")
    run(Layout(folder), workers=1, max_iterations=None, watcher=Silence())
    return Layout(folder), request.param


def test_training_frames_are_cut_and_fresh_ones_are_whole(ran: tuple[Layout, str]) -> None:
    layout, kind = ran
    campaign = Campaign(layout)
    pool = History(layout).pool(1)
    assert pool is not None
    taken = np.flatnonzero(pool["labelled_as"] != "")
    joined = []
    for n in taken:
        told = campaign.explain(str(pool["uid"][n]))
        fresh = pool["fate"][n] == "fresh"
        assert told["label"]["purpose"] == ("fresh" if fresh else "train")
        assert told["cut_out"] == (None if fresh else str(pool["labelled_as"][n]))
        assert campaign.explain(str(pool["labelled_as"][n])) == told
        if told["label"]["verdict"] == "accepted" and not fresh:
            assert told["split"] == "train"
            joined.append(told["cut_out"])
    trained = [atoms for atoms in campaign.frames("train") if atoms.info["origin"] == "cut-out"]
    assert joined
    assert sorted(atoms.info["uid"] for atoms in trained) == sorted(joined)
    for atoms in trained:
        assert len(atoms) < 32
        assert atoms.pbc.tolist() == [kind == "cell"] * 3
        if kind == "cell":
            np.testing.assert_allclose(atoms.cell.array, 6.4 * np.eye(3))
        # What was labelled is the cut itself, images and all.
        again = atoms.copy()
        again.calc = EMT()
        np.testing.assert_allclose(atoms.get_forces(), again.get_forces(), atol=1e-6)
    assert all(len(atoms) == 32 for atoms in campaign.frames("fresh"))
