"""Frames shown in space carry the stored numbers, and the ones worth looking at are among them."""

from pathlib import Path

import numpy as np
import pytest

from al_leignn.campaign.campaign import Campaign
from al_leignn.campaign.history import History
from al_leignn.report import scenes as module
from al_leignn.report.scenes import scenes


def test_scenes_carry_the_stored_numbers(emt_campaign: Path) -> None:
    campaign = Campaign.open(emt_campaign)
    found = scenes(History(campaign.layout))
    assert found
    assert [scene.iteration for scene in found] == sorted((scene.iteration for scene in found), reverse=True)
    for scene in found:
        told = campaign.explain(scene.uid)
        assert (scene.fate, scene.verdict, scene.novelty) == (told["fate"], told["verdict"], told["novelty"])
        assert told["origin"] == {
            "kind": "md",
            "iteration": scene.iteration,
            "walker": scene.walker,
            "step": scene.step,
            "temperature": scene.temperature,
        }
        assert scene.deviation.max() == pytest.approx(told["deviation"]["max"], rel=1e-6)
        assert int(np.argmax(scene.deviation)) == told["deviation"]["worst_atom"]
        assert (
            np.linalg.norm(scene.positions[scene.bonds[:, 0]] - scene.positions[scene.bonds[:, 1]], axis=1).max(initial=0) < 3.5
        )


def test_every_kind_of_frame_is_shown() -> None:
    pool = {
        "fate": np.array(["train", "train, novel", "accurate", "accurate", "surplus", "failed", "fresh"]),
        "verdict": np.array(["candidate", "accurate", "accurate", "accurate", "candidate", "failed", "candidate"]),
        "novelty": np.array([0.2, 1.5, 1.2, 0.5, 0.1, 3.0, 0.3]),
    }
    deviation = np.array([0.3, 0.05, 0.04, 0.03, 0.2, 0.9, 0.25])
    assert module._worth_showing(pool, deviation) == [0, 1, 2, 5, 4]


def test_a_large_campaign_shows_its_newest_frames(emt_campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(Campaign.open(emt_campaign).layout)
    monkeypatch.setattr(module, "MOST_ATOMS", 9)
    few = scenes(history)
    assert 1 <= len(few) <= 3
    assert {scene.iteration for scene in few} == {2}
