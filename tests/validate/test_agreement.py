"""Whole trajectories compared: Einstein crystals whose every observable is known, alike, stiffer, hotter and too short."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from numpy.typing import NDArray

from al_leignn.errors import ConfigError, DataError
from al_leignn.validate.agreement import TOLERANCES, Agreement, agree, memories_ps, tolerances_of
from al_leignn.validate.equivalence import Outcome, weigh
from al_leignn.validate.thermodynamics import force_sizes
from al_leignn.validate.trajectory import Trajectory

RIGID = bulk("NaCl", "rocksalt", a=5.6, cubic=True)


def einstein_crystal(
    frames: int,
    *,
    seed: int,
    frequency: float = 5.0,
    spread: float = 0.18,
    labels: bool = True,
    interval_fs: float = 10.0,
    friction: float = 0.005,
) -> Trajectory:
    """Atoms on springs in a Langevin bath (friction in 1/fs); frequency in THz, amplitude (standard deviation) in Å.

    Each coordinate is the exact stationary solution of the damped oscillator, step by step.
    """
    rng = np.random.default_rng(seed)
    omega, dt = 2e-3 * np.pi * frequency, interval_fs
    drift = np.array([[0.0, 1.0], [-(omega**2), -friction]])
    values, vectors = np.linalg.eig(drift)
    step = (vectors @ np.diag(np.exp(values * dt)) @ np.linalg.inv(vectors)).real
    stationary = np.diag([spread**2, (spread * omega) ** 2])
    noise = np.linalg.cholesky(stationary - step @ stationary @ step.T)
    state = np.sqrt(stationary) @ rng.standard_normal((2, 24))
    path = np.empty((frames, 2, 24))
    for n in range(frames):
        path[n] = state
        state = step @ state + noise @ rng.standard_normal((2, 24))
    moved: NDArray[np.float64] = path[:, 0].reshape(frames, 8, 3)
    stiffness = 0.01
    return Trajectory(
        name=f"crystal {seed}",
        numbers=RIGID.numbers,
        pbc=RIGID.pbc,
        cells=np.tile(np.asarray(RIGID.cell), (frames, 1, 1)),
        positions=RIGID.positions + moved,
        interval_fs=interval_fs,
        velocities=path[:, 1].reshape(frames, 8, 3) if labels else None,
        energies=0.5 * stiffness * np.square(moved).sum(axis=(1, 2)) if labels else None,
        kinetic=0.5 * stiffness / omega**2 * np.square(path[:, 1]).sum(axis=1) if labels else None,
        forces=-stiffness * moved if labels else None,
        temperature=300.0,
    )


def compared(reference: Trajectory, md: Trajectory) -> Agreement:
    return agree(reference, md, seed=np.random.SeedSequence(0))


@pytest.fixture(scope="module")
def reference() -> Trajectory:
    return einstein_crystal(12_000, seed=1)


def test_the_same_crystal_is_equivalent(reference: Trajectory) -> None:
    found = compared(reference, einstein_crystal(12_000, seed=2))
    verdicts = {c.name: c.verdict for c in found.comparisons}
    assert "different" not in verdicts.values()
    assert sum(verdict == "equivalent" for verdict in verdicts.values()) >= 10, verdicts
    assert {c.kind for c in found.comparisons} == {
        "rdf", "adf", "coordination", "msd", "vdos", "energy", "forces",
    }  # fmt: skip
    assert set(found.skipped) == {"pressure", "diffusion Na", "diffusion Cl"}


def test_diffusion_counts_as_soon_as_one_atom_of_either_leaves_its_site() -> None:
    still = einstein_crystal(500, seed=1)
    hop = still.positions.copy()
    hop[300:, np.flatnonzero(still.numbers == 11)[0], 0] += 2.8
    for pair in ((still, replace(still, positions=hop)), (replace(still, positions=hop), still)):
        found = compared(*pair)
        assert found.skipped["diffusion Cl"] == "no atom leaves its site"
        assert "diffusion Na" in {c.name for c in found.comparisons}


def test_the_whole_is_as_good_as_its_worst_part() -> None:
    short = einstein_crystal(60, seed=1)
    found = compared(short, short)
    parts = dict(zip(Outcome, (replace(found.comparisons[0], outcome=outcome) for outcome in Outcome), strict=True))
    for names, outcome in (
        ([Outcome.EQUIVALENT] * 2, Outcome.EQUIVALENT),
        ([Outcome.EQUIVALENT, Outcome.UNDECIDED], Outcome.UNDECIDED),
        (list(Outcome), Outcome.DIFFERENT),
    ):
        assert replace(found, comparisons=[parts[name] for name in names]).outcome is outcome


def test_springs_softer_by_a_tenth_are_different(reference: Trajectory) -> None:
    """Frequencies 5 % lower, amplitudes 5 % larger: seen by the spectrum and by displacements; nothing else is misjudged."""
    found = compared(reference, einstein_crystal(12_000, seed=3, frequency=4.75, spread=0.189))
    assert found.outcome is Outcome.DIFFERENT
    assert "vdos" in {c.kind for c in found.comparisons if c.outcome is Outcome.DIFFERENT}
    assert all(c.outcome is Outcome.EQUIVALENT for c in found.comparisons if c.kind in ("coordination", "energy"))


def test_short_trajectories_decide_nothing() -> None:
    found = compared(einstein_crystal(60, seed=4), einstein_crystal(1000, seed=5))
    assert found.outcome is Outcome.UNDECIDED
    undecided = [c for c in found.comparisons if c.kind in ("rdf", "energy", "forces")]
    assert all("ps more AIMD" in c.verdict for c in undecided)


def test_a_trajectory_shorter_than_the_memory_of_its_energy_decides_nothing() -> None:
    """At a friction of 0.5/ps energies are remembered for 2 ps: what 2 ps show is one energy, not the canonical ensemble."""
    wrong = {True: 0, False: 0}
    for seed in range(60):
        pair = [einstein_crystal(frames, seed=100 * frames + seed, friction=5e-4) for frames in (200, 800)]
        ours, theirs = (force_sizes(trajectory, like=pair[0])[0] for trajectory in pair)
        for known in wrong:
            memories = memories_ps((pair[0], pair[1]), None) if known else (0.0, 0.0)
            rng = np.random.default_rng(seed)
            found = weigh(ours, theirs, TOLERANCES["forces"], rng=rng, memories_ps=memories).decide(0.05 / 12, 0.05 / 12)
            wrong[known] += found.outcome is Outcome.DIFFERENT
    assert wrong[True] == 0
    assert wrong[False] > 3  # though all trajectories are of one crystal


def test_memory_of_the_energy() -> None:
    known = einstein_crystal(60_000, seed=9, friction=2e-3)
    memory, _ = memories_ps((known, known), None)
    assert memory == pytest.approx(2 / 2.0, rel=0.25)  # 1 + 2 Σ exp(-γt) = 2/γ, for a friction of 2/ps
    assert known.energies is not None
    assert known.energies.std() > 0
    conserved = replace(known, kinetic=known.energies.max() - known.energies)
    assert memories_ps((conserved, replace(known, kinetic=None)), None) == (0.0, 0.0)


def test_distance_of_force_distributions() -> None:
    """Forces larger by a twentieth are a twentieth apart, and the integral of the curve is their mean."""
    crystal = einstein_crystal(2000, seed=11)
    assert crystal.forces is not None
    ours, theirs = (force_sizes(replace(crystal, forces=scale * crystal.forces), like=crystal)[0] for scale in (1.0, 1.05))
    width = ours.grid[1] - ours.grid[0]
    mean = float(np.linalg.norm(crystal.forces[:, crystal.numbers == 11], axis=2).mean())
    assert ours.series.mean(axis=0).sum() * width == pytest.approx(mean, rel=2e-3)
    apart = weigh(ours, theirs, TOLERANCES["forces"], rng=np.random.default_rng(0)).measured.difference
    assert apart == pytest.approx(0.05, rel=0.02)


def test_what_one_side_lacks_is_said() -> None:
    reference = einstein_crystal(300, seed=1)
    coarse = einstein_crystal(100, seed=6, labels=False, interval_fs=30.0)
    found = compared(reference, coarse)
    assert found.skipped["vibrations"] == "frames are 30 fs apart; 15 fs would show the vibrations"
    assert found.skipped["energy"] == "no energies in the MD"
    assert found.skipped["pressure"] == "no stresses in the reference and the MD"
    assert "msd" in {c.kind for c in found.comparisons}
    odd = einstein_crystal(400, seed=6, labels=False, interval_fs=7.0)
    assert "no multiples of 7 fs" in compared(reference, odd).skipped["mean squared displacement, diffusion"]


def test_json_is_complete_and_repeats() -> None:
    reference, md = einstein_crystal(300, seed=1), einstein_crystal(200, seed=7)
    written = [json.dumps(compared(reference, md).to_dict(), allow_nan=False) for _ in range(2)]
    assert written[0] == written[1]
    found = json.loads(written[0])
    assert found["outcome"] == "undecided"
    assert found["reference"]["formula"] in ("NaCl", "Cl4Na4", "Na4Cl4")
    assert found["reference"]["length_ps"] == pytest.approx(3)
    assert all(len(o["grid"]) == len(o["md"]["mean"]) for o in found["observables"] if o["grid"])


def test_tolerances_are_the_users() -> None:
    found = tolerances_of(["rdf=0.1", "energy=0.02"])
    assert (found["rdf"].value, found["energy"].value, found["adf"]) == (0.1, 0.02, TOLERANCES["adf"])
    for wrong in ("rdx=0.1", "rdf", "rdf=much", "rdf=-1", "rdf=nan"):
        with pytest.raises(ConfigError) as refused:
            tolerances_of([wrong])
        assert "rdf, adf" in refused.value.fix


def test_another_crystal_is_refused(reference: Trajectory) -> None:
    hot = einstein_crystal(100, seed=8)
    object.__setattr__(hot, "temperature", 400.0)
    with pytest.raises(DataError, match="another temperature"):
        compared(reference, hot)
    with pytest.raises(ConfigError, match="error rate is 2"):
        agree(reference, reference, error_rate=2.0, seed=np.random.SeedSequence(0))
