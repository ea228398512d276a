"""Published files that were damaged afterwards are found, and made again bit by bit; what is whole is left alone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from al_leignn.campaign.item import unfinished
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.mend import mend
from al_leignn.core import Stage, StageRequest
from al_leignn.labelstore import LabelStore
from al_leignn.model.unfinished import load_state, save_state
from al_leignn.store import MANIFEST, digest_file, read_manifest

Damage = Callable[[Path], None]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    """In a digit, if there is one: what is left is as readable as before."""
    data = bytearray(path.read_bytes())
    place = next((n for n in range(len(data) * 2 // 3, len(data)) if chr(data[n]).isdigit()), len(data) // 2)
    data[place] ^= 1
    path.write_bytes(data)


def delete(path: Path) -> None:
    path.unlink()


@pytest.fixture
def layout(emt_campaign: Path, tmp_path: Path) -> Layout:
    shutil.copytree(emt_campaign, tmp_path / "campaign")
    return Layout.open(tmp_path / "campaign")


def published(layout: Layout) -> dict[str, Any]:
    """All manifests, times aside, and the digests of all files beside them."""
    found: dict[str, Any] = {}
    for path in layout.iterations.rglob("*"):
        if path.name == MANIFEST:
            manifest = read_manifest(path.parent)
            assert manifest is not None
            found[str(path)] = manifest.without_times()
        elif path.is_file():
            found[str(path)] = digest_file(path)
    return found


def test_what_is_whole_is_left_alone(layout: Layout) -> None:
    before = {path: path.stat().st_mtime_ns for path in layout.root.rglob("*")}
    assert mend(layout) == []
    assert {path: path.stat().st_mtime_ns for path in layout.root.rglob("*")} == before


def test_what_an_item_kept_while_it_was_under_way_goes(layout: Layout) -> None:
    left = unfinished(layout, StageRequest(Stage.TRAIN, 1, 0))
    left.mkdir()
    assert mend(layout) == []
    assert not left.exists()


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, delete])
@pytest.mark.parametrize(
    ("stage", "iteration", "name"),
    [
        (Stage.LABEL, 1, MANIFEST),
        (Stage.LABEL, 1, "label.extxyz"),
        (Stage.SELECT, 0, MANIFEST),
        (Stage.CONVERGE, 0, MANIFEST),
        (Stage.TRAIN, 1, "member.safetensors"),
    ],
)
def test_damage_is_undone(layout: Layout, damage: Damage, stage: Stage, iteration: int, name: str) -> None:
    before, labels = published(layout), len(LabelStore(layout.root / "labels"))
    damage(layout.item(StageRequest(stage, iteration, 0)) / name)
    assert published_or_damaged(layout) != before
    (told,) = mend(layout)
    assert told.startswith(f"{StageRequest(stage, iteration, 0)} is made again")
    assert published(layout) == before
    assert len(LabelStore(layout.root / "labels")) == labels
    assert mend(layout) == []


def published_or_damaged(layout: Layout) -> dict[str, str]:
    return {str(path): digest_file(path) for path in layout.iterations.rglob("*") if path.is_file()}


def test_a_checkpoint_with_any_bit_flipped_is_not_picked_up(tmp_path: Path) -> None:
    path = tmp_path / "state"
    tensors = {"weights": torch.arange(12.0).reshape(3, 4), "step": torch.tensor(7.0)}
    save_state(path, "progress", {"step": 7, "history": [{"loss": 0.1}]}, tensors, "fingerprint")
    whole = path.read_bytes()
    found = load_state(path, "progress", "fingerprint")
    assert found is not None
    assert found[0]["step"] == 7
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert load_state(path, "progress", "fingerprint") is None, (place, whole[place - 10 : place + 10])
    path.write_bytes(whole[:-5])
    assert load_state(path, "progress", "fingerprint") is None
