import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.data import covalent_radii

from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import Frame, LabelledFrame
from al_leignn.errors import CheckpointError, ConfigError, DataError, RunError
from al_leignn.model.checkpoint import load_member
from al_leignn.model.graph import Graph, build_graph
from al_leignn.model.leignn import LEIGNN, Output
from al_leignn.store import read_labelled, write_frames
from al_leignn.train import trainer
from al_leignn.train.baseline import fit_e0s
from al_leignn.train.batches import make_examples
from al_leignn.train.fit import EVALUATIONS
from al_leignn.train.fit import Fit as FitLoop
from al_leignn.train.loss import Units
from al_leignn.train.trainer import FitReport, fit_member

Maker = Callable[..., list[LabelledFrame]]
Fit = Callable[..., FitReport]


@pytest.fixture
def fit(small: ModelConfig, quick: TrainConfig, tmp_path: Path) -> Fit:
    """`fit(frames, name, **changes)` fits a small member to `tmp_path / name`."""

    def run(frames: list[LabelledFrame], name: str, *, train: dict[str, Any] | None = None, **changes: Any) -> FitReport:
        settings: dict[str, Any] = {"member": 0, "seed": np.random.SeedSequence(7), "start": None, "steps": 40, "model": small}
        settings["e0s"] = fit_e0s(frames) if frames else {}
        return fit_member(frames, train=quick.model_copy(update=train or {}), out=tmp_path / name, **settings | changes)

    return run


def predict(path: Path, item: LabelledFrame) -> tuple[float, np.ndarray]:
    network = load_member(path, dtype=torch.float64)
    out = network(build_graph(item.frame.atoms, network.config.cutoff, network.species))
    return float(out.energy), out.forces.detach().numpy()


def force_mae(path: Path, frames: list[LabelledFrame]) -> float:
    return float(np.mean([np.abs(predict(path, f)[1] - f.labels.forces).mean() for f in frames]))


def finite(value: float | None) -> float:
    assert value is not None
    assert np.isfinite(value)
    return value


# --- learning ----------------------------------------------------------------------------------------------


def test_a_fit_learns_forces_energies_and_stress_of_unseen_frames(copper: Maker, fit: Fit, tmp_path: Path) -> None:
    unseen = copper(20, 2)
    report = fit(copper(40, 1), "m", steps=250, valid=unseen)
    losses = [entry["train_loss"] for entry in report.history]
    assert losses[len(losses) // 2] < 0.3 * losses[0]  # before the energy weight rises
    assert finite(report.force_mae) < 0.06 * np.sqrt(np.mean([np.square(f.labels.forces).mean() for f in unseen]))
    assert finite(report.energy_mae) < 0.004
    assert finite(report.stress_mae) < 0.008
    assert report.force_mae == pytest.approx(force_mae(tmp_path / "m", unseen), rel=1e-3)


def test_molecules_and_crystals_of_different_sizes_share_batches(copper: Maker, carbon_monoxide: Maker, fit: Fit) -> None:
    frames = [*copper(6, 1), *carbon_monoxide(6, 2), *copper(3, 3, repeat=2)]
    valid = [*carbon_monoxide(2, 5), *copper(2, 4)]
    report = fit(frames, "m", train={"batch_atoms": 24}, steps=60, valid=valid)
    assert report.history[-1]["train_force_mae"] < 0.7 * report.history[0]["train_force_mae"]
    assert np.isfinite([value for entry in report.history for value in entry.values()]).all()
    assert report.stress_mae is not None


def test_without_any_stress_label_there_is_no_stress_error(carbon_monoxide: Maker, fit: Fit) -> None:
    report = fit(carbon_monoxide(6, 1), "m", steps=10, valid=carbon_monoxide(2, 2))
    assert report.stress_mae is None
    assert report.force_mae is not None


def test_without_holdout_the_last_average_is_kept_and_no_error_is_claimed(copper: Maker, fit: Fit) -> None:
    report = fit(copper(5, 1), "m", steps=10)
    assert (report.energy_mae, report.force_mae, report.stress_mae, report.best_step) == (None, None, None, 10)
    assert not any(key.startswith("valid") for entry in report.history for key in entry)


def test_the_holdout_picks_the_best_evaluation(copper: Maker, fit: Fit) -> None:
    report = fit(copper(20, 1, walkers=10), "m", train={"holdout": 0.15}, steps=60)
    best = min(report.history, key=lambda entry: entry["valid_loss"])
    assert report.best_step == best["step"]
    assert report.force_mae == best["valid_force_mae"]
    assert len(report.history) <= EVALUATIONS


def test_equal_seeds_give_equal_bytes_and_other_members_do_not(copper: Maker, fit: Fit, tmp_path: Path) -> None:
    frames = copper(6, 1)
    for name, member in (("a", 0), ("b", 0), ("c", 1)):
        fit(frames, name, member=member, steps=10)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_repulsive_core_begins_below_all_that_is_trained_on(copper: Maker, fit: Fit, tmp_path: Path) -> None:
    """Hot dense matter brings atoms closer than 0.75 sums of covalent radii, where the core usually begins."""
    frames = copper(3, 1)
    fit(frames, "usual", steps=0)
    pressed = frames[0].frame.atoms.copy()
    pressed.positions[1] = pressed.positions[0] + [0.0, 0.0, 0.6 * 2 * covalent_radii[29]]
    labelled = replace(frames[0], frame=Frame.of(pressed, frames[0].frame.origin))
    fit([*frames, labelled], "hot", steps=0)
    fit([*frames, labelled], "hotter", start=tmp_path / "usual", steps=0)
    reach = [load_member(tmp_path / name).core_reach for name in ("usual", "hot", "hotter")]
    np.testing.assert_allclose(reach, [0.75, 0.95 * 0.6, 0.95 * 0.6], rtol=1e-6)


# --- warm start --------------------------------------------------------------------------------------------


def test_a_warm_start_goes_on_where_the_model_stood(copper: Maker, fit: Fit, tmp_path: Path) -> None:
    frames = copper(6, 1)
    fit(frames, "first", steps=30)
    shifted = {z: e + 1.0 for z, e in fit_e0s(frames).items()}  # reference energies fitted to later data may differ
    fit(copper(9, 3), "again", start=tmp_path / "first", steps=0, e0s=shifted)
    for item in copper(3, 8):
        energy, forces = predict(tmp_path / "first", item)
        energy_again, forces_again = predict(tmp_path / "again", item)
        assert energy_again == pytest.approx(energy, abs=1e-9)
        np.testing.assert_allclose(forces_again, forces, atol=1e-9)


def test_a_warm_start_improves_on_its_start(copper: Maker, fit: Fit, tmp_path: Path) -> None:
    test = copper(10, 9)
    fit(copper(10, 1), "first", steps=60)
    fit(copper(30, 1), "more", start=tmp_path / "first", steps=60)
    assert force_mae(tmp_path / "more", test) < 0.9 * force_mae(tmp_path / "first", test)


def test_a_warm_start_from_another_architecture_or_species_is_refused(
    copper: Maker, carbon_monoxide: Maker, small: ModelConfig, fit: Fit, tmp_path: Path
) -> None:
    frames = copper(4, 1)
    fit(frames, "m", steps=1)
    with pytest.raises(CheckpointError, match="another architecture"):
        fit(frames, "n", model=small.model_copy(update={"features": 16}), start=tmp_path / "m")
    with pytest.raises(CheckpointError, match="not seen"):
        fit(carbon_monoxide(4, 1), "n", start=tmp_path / "m")


def test_unusable_input_is_refused(copper: Maker, carbon_monoxide: Maker, fit: Fit, tmp_path: Path) -> None:
    frames = copper(4, 1)
    with pytest.raises(DataError, match="no labelled frames"):
        fit([], "m")
    with pytest.raises(DataError, match="no isolated-atom energy for Cu"):
        fit(frames, "m", e0s={})
    with pytest.raises(DataError, match="validation frames hold C, O,"):
        fit(frames, "m", valid=carbon_monoxide(1, 1))
    with pytest.raises(ConfigError, match="'abacus' is no device"):
        fit(frames, "m", train={"device": "abacus"})
    with pytest.raises(ConfigError, match="has no device 'cuda:99'"):
        fit(frames, "m", train={"device": "cuda:99"})
    with pytest.raises(DataError, match="also trained on"):
        fit(frames, "m", valid=frames[:1])
    assert list(tmp_path.iterdir()) == []


# --- resume ------------------------------------------------------------------------------------------------

FIT_IN_A_PROCESS = """
import json, sys
from pathlib import Path
import numpy as np, torch
from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.store import read_labelled
from al_leignn.train import trainer

torch.set_num_threads(1)
trainer.RESUME_EVERY_S = 0.02
folder = Path(sys.argv[1])
settings = json.loads((folder / "settings.json").read_text())
trainer.fit_member(
    read_labelled(folder / "frames.extxyz"), ModelConfig(**settings["model"]), TrainConfig(**settings["train"]),
    member=2, seed=np.random.SeedSequence(3), e0s={29: -0.01}, start=None, out=folder / "killed", steps=100, resume_dir=folder,
)
"""


def test_killed_and_resumed_equals_uninterrupted(
    copper: Maker,
    fit: Fit,
    small: ModelConfig,
    quick: TrainConfig,
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = {"holdout": 0.2}
    write_frames(tmp_path / "frames.extxyz", copper(6, 1, walkers=6))
    settings = {"model": small.model_dump(), "train": quick.model_copy(update=train).model_dump()}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    state = tmp_path / "member-2.safetensors"
    command = [sys.executable, "-c", FIT_IN_A_PROCESS, str(tmp_path)]
    process = subprocess.Popen(command, cwd=repository, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not state.exists():
        assert process.poll() is None, "the fit ended before it could be killed"
        time.sleep(0.01)
    time.sleep(0.15)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists()
    assert not (tmp_path / "killed").exists()

    monkeypatch.setattr(trainer, "REPORT_EVERY_S", 0.0)
    steps: list[int] = []
    frames = read_labelled(tmp_path / "frames.extxyz")
    same: dict[str, Any] = {"train": train, "member": 2, "seed": np.random.SeedSequence(3), "e0s": {29: -0.01}, "steps": 100}
    resumed = fit(frames, "killed", resume_dir=tmp_path, progress=lambda done, *_: steps.append(done), **same)
    whole = fit(frames, "whole", **same)
    assert steps[0] > 1, "the fit began anew instead of going on"
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert [entry | {"seconds": 0} for entry in resumed.history] == [entry | {"seconds": 0} for entry in whole.history]
    assert resumed.force_mae is not None, "nothing was held out"

    # Until the caller has published a fit, it is not lost.
    steps.clear()
    again = fit(frames, "again", resume_dir=tmp_path, progress=lambda done, *_: steps.append(done), **same)
    assert not steps
    assert again.history == resumed.history
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("direct_forces", [False, True])
def test_the_paper_network_is_fitted_and_resumed_too(
    copper: Maker, fit: Fit, tmp_path: Path, direct_forces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = ModelConfig(preset="paper", direct_forces=direct_forces, cutoff=4.0, features=8, layers=2, radial=8)
    frames = copper(4, 1)
    report = fit(frames, "whole", model=paper, steps=30)
    assert report.history[-1]["train_force_mae"] < report.history[0]["train_force_mae"]
    interrupt(lambda hook: fit(frames, "m", model=paper, steps=30, resume_dir=tmp_path, progress=hook), monkeypatch)
    fit(frames, "m", model=paper, steps=30, resume_dir=tmp_path)
    assert (tmp_path / "m").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_foreign_or_damaged_state_is_not_picked_up(
    copper: Maker, fit: Fit, tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = copper(4, 1)
    fit(frames, "whole", steps=6)
    state = tmp_path / "member-0.safetensors"
    if content is None:
        interrupt(lambda hook: fit(frames, "m", steps=7, resume_dir=tmp_path, progress=hook), monkeypatch)
        assert state.exists()
    else:
        state.write_bytes(content)
    fit(frames, "m", steps=6, resume_dir=tmp_path)
    assert (tmp_path / "m").read_bytes() == (tmp_path / "whole").read_bytes()


def interrupt(run: Callable[[Callable[..., None]], FitReport], monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt a fit after four steps, as Ctrl-C does; its state stays behind."""

    def hook(done: int, *_: object) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "RESUME_EVERY_S", 0.0)
        patched.setattr(trainer, "REPORT_EVERY_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            run(hook)


# --- memory ------------------------------------------------------------------------------------------------


class _Cramped(LEIGNN):
    """A network that runs out of memory, as a GPU does, on batches of more than `room` edges."""

    room = 10**9

    def forward(self, graph: Graph, **options: Any) -> Output:
        if len(graph.centre) > self.room:
            raise torch.OutOfMemoryError("no room")
        return super().forward(graph, **options)


def _advance(frames: list[LabelledFrame], model: ModelConfig, train: TrainConfig, room: int, monkeypatch: Any) -> FitLoop:
    monkeypatch.setattr(_Cramped, "room", room)
    species = sorted({int(z) for f in frames for z in f.frame.atoms.numbers})
    network = _Cramped(model, species, e0s=fit_e0s(frames), energy_scale=1.0, mean_neighbours=12.0, seed=1).double()
    examples = make_examples(frames, model.cutoff, species, torch.float64, torch.device("cpu"))
    loop = FitLoop(network, Units.of(1.0), [], train, 10)
    for _ in range(3):
        loop.advance(examples)
    return loop


def test_a_batch_too_large_for_memory_is_cut_and_gives_the_same_step(
    copper: Maker, carbon_monoxide: Maker, small: ModelConfig, quick: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [*copper(3, 1), *carbon_monoxide(4, 2), *copper(2, 3, repeat=2)]  # some without stress
    whole = _advance(frames, small, quick, 10**9, monkeypatch)
    edges = sum(len(build_graph(f.frame.atoms, small.cutoff, whole.network.species).centre) for f in frames)
    cramped = _advance(frames, small, quick, edges // 3, monkeypatch)
    assert (whole.pieces, cramped.pieces > 1) == (1, True)
    for name, p in whole.parameters.items():
        assert torch.allclose(p, cramped.parameters[name], rtol=1e-9, atol=1e-12), name
    assert cramped.recent.means() == pytest.approx(whole.recent.means(), rel=1e-9)


def test_a_frame_that_never_fits_is_said(
    copper: Maker, small: ModelConfig, quick: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match=r"single frame(.|\n)*4 atoms"):
        _advance(copper(3, 1), small, quick, 1, monkeypatch)


def test_the_log_gets_every_entry_of_the_history(copper: Maker, fit: Fit) -> None:
    seen: list[dict[str, float]] = []
    report = fit(copper(5, 1), "m", steps=30, evaluated=lambda entry: seen.append(dict(entry)))
    assert seen == report.history
