"""An interrupted run goes on as if it had never stopped, and memory does not grow with its length."""

import gzip
import lzma
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111

from al_leignn.config import ExploreConfig
from al_leignn.errors import DataError
from al_leignn.explore import md
from al_leignn.explore.md import Exploration, Walker, explore
from al_leignn.explore.production import write_trajectory
from al_leignn.explore.record import Recorder, read_samples


class InterruptedRunError(Exception):
    pass


def interrupt_after(steps: int) -> Any:
    def progress(done: int, _: int) -> None:
        if done >= steps:
            raise InterruptedRunError

    return progress


def config(**settings: Any) -> ExploreConfig:
    return ExploreConfig(**({"steps": 120, "stride": 5, "timestep_fs": 5.0, "temperatures": [60.0]} | settings))


def argon(n: int = 2) -> Atoms:
    atoms: Atoms = bulk("Ar", cubic=True, a=5.4) * (n, 1, 1)
    return atoms


def produce(potential: Any, atoms: Atoms, settings: ExploreConfig, out: Path, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"seed": 3, "progress": lambda *_: None} | options
    return write_trajectory(potential, atoms, settings, out, **given)


@pytest.mark.parametrize(
    ("settings", "suffix"),
    [
        ({"ensemble": "nve"}, ""),
        ({"thermostat": "langevin"}, ".xz"),
        ({"thermostat": "csvr"}, ".gz"),
        ({"ensemble": "npt", "cell": "full"}, ""),
        ({"driver": "mean", "bias_ev": 0.1, "bias_width_ev": 0.001}, ""),
    ],
)
def test_a_resumed_run_writes_what_an_uninterrupted_one_does(
    lennard_jones: Any, tmp_path: Path, settings: dict[str, Any], suffix: str
) -> None:
    """To the last byte, though two interrupts fall between checkpoints and leave frames that must be taken back."""
    potential = lennard_jones(strengths=(0.9, 1.1))
    whole, parts = tmp_path / f"whole.extxyz{suffix}", tmp_path / f"parts.extxyz{suffix}"
    produce(potential, argon(), config(**settings), whole)
    for stop in (37, 108):
        with pytest.raises(InterruptedRunError):
            produce(potential, argon(), config(**settings), parts, resume=True, progress=interrupt_after(stop))
    report = produce(potential, argon(), config(**settings), parts, resume=True)
    assert report["steps"] == 120
    unpack = {"": lambda b: b, ".xz": lzma.decompress, ".gz": gzip.decompress}[suffix]
    assert unpack(parts.read_bytes()) == unpack(whole.read_bytes())
    assert [frame.info["md_step"] for frame in ase.io.read(parts, ":")] == list(range(5, 125, 5))


def test_a_slab_is_resumed_where_it_drifted(springs: Any, tmp_path: Path) -> None:
    slab = fcc111("Al", (2, 2, 2), vacuum=6.0)
    slab.pbc = (True, True, False)
    potential = springs(species=(13,), cutoff=3.5, length=2.86, stiffness=10.0)
    settings = config(temperatures=[900.0])
    whole, parts = tmp_path / "whole.extxyz", tmp_path / "parts.extxyz"
    produce(potential, slab, settings, whole)
    with pytest.raises(InterruptedRunError):
        produce(potential, slab, settings, parts, progress=interrupt_after(110))
    produce(potential, slab, settings, parts, resume=True)
    assert parts.read_bytes() == whole.read_bytes()


def test_more_steps_go_on_from_the_end(lennard_jones: Any, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.extxyz", tmp_path / "parts.extxyz"
    produce(lennard_jones(), argon(), config(steps=200), whole)
    produce(lennard_jones(), argon(), config(steps=100), parts)
    produce(lennard_jones(), argon(), config(steps=200), parts, resume=True)
    assert parts.read_bytes() == whole.read_bytes()
    again = produce(lennard_jones(), argon(), config(steps=200), parts, resume=True)
    assert (again["steps"], again["frames"]) == (200, 0)
    assert parts.read_bytes() == whole.read_bytes()


def test_only_the_same_run_is_resumed(lennard_jones: Any, tmp_path: Path) -> None:
    out = tmp_path / "md.extxyz"
    produce(lennard_jones(), argon(), config(steps=100), out)
    before = out.read_bytes()
    with pytest.raises(DataError, match="--resume"):
        produce(lennard_jones(), argon(), config(steps=100), out)
    for changed in ({"temperatures": [70.0]}, {"timestep_fs": 4.0}):
        with pytest.raises(DataError, match="other settings"):
            produce(lennard_jones(), argon(), config(**changed), out, resume=True)
    with pytest.raises(DataError, match="other settings"):
        produce(lennard_jones(), argon(), config(), out, resume=True, model="another")
    state = out.with_name("md.extxyz.restart")
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged"):
        produce(lennard_jones(), argon(), config(), out, resume=True)
    assert out.read_bytes() == before


def explored(potential: Any, folder: Path, **options: Any) -> Exploration:
    """Three walkers; the hot one is stopped on its way."""
    walkers = [Walker(0, argon(), 20.0), Walker(1, argon(1), 150.0), Walker(2, argon(1), (5.0, 15.0))]
    return explore(
        potential, walkers, config(), iteration=1, trust_hi=0.01, seed=np.random.SeedSequence(1), folder=folder, **options
    )


def test_an_interrupted_exploration_finds_the_same(lennard_jones: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(md, "_CHECKPOINT_STEPS", 100)
    potential = lennard_jones(strengths=(0.9, 1.1))
    whole = explored(potential, tmp_path / "whole", fingerprint="a")
    assert [bool(walker.stop_reason) for walker in whole.walkers] == [False, True, False]
    with pytest.raises(InterruptedRunError):
        explored(potential, tmp_path / "parts", fingerprint="a", progress=interrupt_after(345))
    steps: list[int] = []
    parts = explored(potential, tmp_path / "parts", fingerprint="a", progress=lambda done, _: steps.append(done))
    assert steps[0] >= 200
    assert parts.walkers == whole.walkers
    assert [s.frame.uid for s in parts.samples] == [s.frame.uid for s in whole.samples]
    with pytest.raises(InterruptedRunError):
        explored(potential, tmp_path / "other", fingerprint="a", progress=interrupt_after(345))
    explored(potential, tmp_path / "other", fingerprint="b", progress=lambda done, _: steps.append(done))
    assert min(steps) < 10


@pytest.mark.parametrize("suffix", ["", ".xz"])
def test_samples_are_read_back_as_they_were(lennard_jones: Any, tmp_path: Path, suffix: str) -> None:
    walkers = [Walker(1, Atoms("Ar2", [[0, 0, 0], [3.8, 0, 0]]), 10.0), Walker(0, argon(), (20.0, 50.0))]
    potential = lennard_jones(strengths=(0.9, 1.1))
    found = explore(potential, walkers, config(steps=15), iteration=2, trust_hi=np.inf, seed=np.random.SeedSequence(1))
    recorder = Recorder(tmp_path / f"samples.extxyz{suffix}", config(steps=15))
    for sample in found.samples[::-1]:
        recorder.add(sample)
    recorder.mark()
    for memory, file in zip(found.samples, read_samples(recorder.path, iteration=2), strict=True):
        assert memory.frame == file.frame
        assert memory.frame.origin == file.frame.origin
        assert (memory.energy, memory.temperature) == (file.energy, file.temperature)
        np.testing.assert_allclose(memory.deviation.per_atom, file.deviation.per_atom, atol=1e-8)
        np.testing.assert_allclose(memory.deviation.mean_force, file.deviation.mean_force, atol=1e-8)
