"""Files: identity survives a round trip, folders appear whole, damage is noticed."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from al_leignn.campaign.structures import read_structures
from al_leignn.core import Frame, LabelledFrame, Labels, Origin
from al_leignn.errors import CampaignError, DamagedArtifactError, InputError
from al_leignn.store import (
    Manifest,
    publishing,
    read_frame,
    read_frames,
    read_labelled,
    read_manifest,
    refuse_endless,
    sweep_scratch,
    verify,
    write_atomic,
    write_frames,
)
from al_leignn.userdata import read_parts


def manifest(**changes: object) -> Manifest:
    values = {"stage": "label", "iteration": 0, "item": 0, "inputs": {}, "config": "c", "seed": [0], "result": {}}
    return Manifest(**(values | changes))  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 50.0))
def test_identity_survives_a_round_trip(tmp_path_factory: pytest.TempPathFactory, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) * scale + np.eye(3) * 3 * scale
    atoms = Atoms("SiOH", positions=rng.normal(size=(3, 3)) * scale * 3, cell=cell, pbc=bool(seed % 2))
    frame = Frame.of(atoms, Origin("md", 3, 1, 40, 312.5))
    labels = Labels(-1.0 / 3.0, rng.normal(size=(3, 3)), rng.normal(size=6))
    path = tmp_path_factory.mktemp("frames") / "frames.extxyz"
    write_frames(path, [LabelledFrame(frame, labels, "1e5"), LabelledFrame(frame, labels, "abc")])
    back = read_labelled(path)
    assert [item.frame.uid for item in back] == [frame.uid] * 2
    assert back[0].frame.origin == frame.origin
    assert back[0].level == "1e5"
    assert back[0].labels.energy == labels.energy
    np.testing.assert_allclose(back[0].labels.forces, labels.forces, atol=1e-8)
    assert back[0].labels.stress is not None
    np.testing.assert_array_equal(back[0].labels.stress, labels.stress)


def test_a_lattice_shift_does_not_change_the_identity() -> None:
    atoms = bulk("Si", cubic=True)
    shifted = atoms.copy()
    shifted.positions[3] += 2 * shifted.cell[0] - shifted.cell[2]
    assert Frame.of(atoms, Origin("given")).uid == Frame.of(shifted, Origin("given")).uid
    moved = atoms.copy()
    moved.positions[3, 0] += 1e-4
    assert Frame.of(atoms, Origin("given")).uid != Frame.of(moved, Origin("given")).uid


def test_reading_one_frame_of_many(tmp_path: Path) -> None:
    frames = [Frame.of(molecule(name), Origin("given", walker=n)) for n, name in enumerate(["H2O", "CH4", "NH3"])]
    write_frames(tmp_path / "f.extxyz", frames)
    assert [read_frame(tmp_path / "f.extxyz", n).uid for n in range(3)] == [f.uid for f in frames]
    write_frames(tmp_path / "none.extxyz", [])
    assert read_frames(tmp_path / "none.extxyz") == []


@pytest.mark.parametrize("line", ["99999999999999999999", "Properties=species:S:1:pos:R:99999999999 pbc=T"])
def test_files_that_would_never_be_read_to_their_end_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "f.extxyz"
    write_frames(path, [Frame.of(molecule("H2O"), Origin("given"))])
    lines = path.read_text().splitlines()
    refuse_endless(lines)
    refuse_endless(["1", "1000 is a comment, and so is the next", "H 0 0 0", "1", "1000", "H 0 0 0"])
    lines[1 if "Properties" in line else 0] = line
    path.write_text("\n".join(lines))
    for read in (read_frames, read_structures, read_parts):
        with pytest.raises((ValueError, InputError), match=r"fewer atoms|too many columns"):
            read(path)


def test_a_folder_is_published_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "item"
    with pytest.raises(FileNotFoundError), publishing(folder) as scratch:
        (scratch / "data").write_text((tmp_path / "missing").read_text())
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []
    with publishing(folder) as scratch:
        (scratch / "data").write_text("x")
        manifest().seal(scratch)
    found = read_manifest(folder)
    assert found is not None
    assert list(found.outputs) == ["data"]
    verify(folder)


def test_the_first_of_two_publishers_wins(tmp_path: Path) -> None:
    folder = tmp_path / "item"
    with publishing(folder) as slow:
        manifest(item=1).seal(slow)
        with publishing(folder) as fast:
            manifest(item=2).seal(fast)
    found = read_manifest(folder)
    assert found is not None
    assert found.item == 2
    assert [p.name for p in tmp_path.iterdir()] == ["item"]


def test_damage_is_reported_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "item"
    with publishing(folder) as scratch:
        (scratch / "data").write_text("x")
        manifest().seal(scratch)
    (folder / "data").write_text("y")
    with pytest.raises(DamagedArtifactError, match="digest"):
        verify(folder)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])
    with pytest.raises(DamagedArtifactError, match="damaged"):
        read_manifest(folder)
    with publishing(folder) as scratch:
        manifest(item=7).seal(scratch)
    found = read_manifest(folder)
    assert found is not None
    assert found.item == 7


def test_a_newer_manifest_is_refused(tmp_path: Path) -> None:
    with publishing(tmp_path / "item") as scratch:
        manifest(version=99).seal(scratch)
    with pytest.raises(CampaignError, match="newer"):
        read_manifest(tmp_path / "item")


def _write_for_ever(path: Path) -> None:
    n = 0
    while True:
        n += 1
        write_atomic(path / "file", f"{n}:" + "x" * 200_000 + f":{n}")


def test_kill_while_writing_leaves_a_whole_file_and_sweepable_litter(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for delay in (0.02, 0.05, 0.11):
        writer = context.Process(target=_write_for_ever, args=(tmp_path,))
        writer.start()
        deadline = time.monotonic() + 20
        while not (tmp_path / "file").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        first, _, last = (tmp_path / "file").read_text().split(":")
        assert first == last
    sweep_scratch(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
