"""Fitting one member of a committee, from labelled frames to its checkpoint; a killed fit is resumed exactly."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols

from al_leignn import __version__
from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import LabelledFrame, Labels
from al_leignn.errors import CheckpointError, DataError
from al_leignn.geometry import closest_contact
from al_leignn.model.checkpoint import load_member, save_member
from al_leignn.model.device import checked_device
from al_leignn.model.leignn import LEIGNN
from al_leignn.model.repulsion import REACH
from al_leignn.store import digest_file, digest_json
from al_leignn.train.batches import Example, epochs, make_examples
from al_leignn.train.fit import Fit
from al_leignn.train.loss import Units
from al_leignn.train.memory import require_memory
from al_leignn.train.split import leave_out

LEAST_FORCE = 0.05
"""Smallest force unit, eV/Å: a set of equilibrium structures has forces that are noise."""

CORE_MARGIN = 0.95
"""The repulsive core begins below this share of the shortest distance that was trained on."""

RESUME_EVERY_S = 20.0
REPORT_EVERY_S = 0.5

ProgressHook = Callable[[int, int, Mapping[str, float]], None]
EvaluationHook = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True)
class FitReport:
    """What one fit came to. The errors are those of the kept weights on the holdout; None without one."""

    history: list[dict[str, float]]
    """One entry per evaluation: step, lr, seconds, train_loss, train_energy_mae (eV/atom), train_force_mae (eV/Å) and
    train_stress_mae (eV/Å^3) since the entry before, and the same with valid_ for the averaged weights on the holdout.
    Stress is absent where no frame had a label, valid_ where there is no holdout."""
    best_step: int
    energy_mae: float | None
    force_mae: float | None
    stress_mae: float | None


def fit_member(
    frames: Sequence[LabelledFrame],
    model: ModelConfig,
    train: TrainConfig,
    *,
    member: int,
    seed: np.random.SeedSequence,
    e0s: Mapping[int, float],
    start: Path | None,
    out: Path,
    steps: int,
    progress: ProgressHook | None = None,
    evaluated: EvaluationHook | None = None,
    valid: Sequence[LabelledFrame] | None = None,
    resume_dir: Path | None = None,
) -> FitReport:
    """Fit one member of a committee and write it to `out`.

    Parameters
    ----------
    frames
        Usable frames (see `set_aside`) of one level of theory.
    member
        Index of the member: it decides which blocks are left out, and its initial weights and batch order.
    seed
        Source of all randomness. Equal arguments give equal bytes in `out`, on one thread of one machine.
    e0s
        Energies of isolated atoms by atomic number, eV; must cover the species of `frames`. A warm start keeps those
        of `start`, and its energy scale, instead: the network was fitted to what they leave over, so the
        prediction goes on where it stood.
    start
        Checkpoint of a member to continue from; None starts from scratch.
    steps
        Optimiser steps; 0 writes the initial model.
    progress
        Called now and then with the steps done, all steps, and the errors of the latest batch.
    evaluated
        Called with each entry of the history (see `FitReport`); after a resume, first with those that there are.
    valid
        Validation frames. If given, no block of `frames` is left out.
    resume_dir
        Folder for the state of the fit. A fit that finds its own state there goes on from it, and its final weights equal
        those of an uninterrupted one (on a CPU). The last state stays until the caller has put `out` where it belongs.

    Raises
    ------
    DataError
        If there are no frames, `e0s` misses a species, or validation frames are also trained on or hold other species.
    ConfigError
        If the device is not there.
    CheckpointError
        If `start` has another architecture or lacks a species of `frames`.
    RunError
        If the loss stops being a finite number, or a frame does not fit into memory.
    """
    training, holdout = _split(frames, valid, train.holdout, member)
    species = sorted(_species(frames))
    _check_species(set(species), holdout, e0s)
    device, dtype = checked_device(train.device, where="train.device"), getattr(torch, train.dtype)
    seeds = [np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, member, use)) for use in range(2)]
    if start is None:
        examples = make_examples(training, model.cutoff, species, dtype, device)
        network = _fresh(model, species, examples, e0s, int(seeds[0].generate_state(1)[0])).to(device, dtype)
    else:
        network = _continued(start, model, species, device, dtype)
        examples = make_examples(training, model.cutoff, network.species, dtype, device)
    # Of all frames, so that members with different holdouts agree.
    network.core_reach = min(network.core_reach, _core_reach(frames))
    held_out = make_examples(holdout, model.cutoff, network.species, dtype, device)

    if device.type == "cpu":  # elsewhere running out of memory is an error that can be met
        require_memory(model, examples, dtype.itemsize)
    fit = Fit(network, Units.of(_force_scale(examples)), held_out, train, steps)
    state_file = None if resume_dir is None else resume_dir / f"member-{member}.safetensors"
    fingerprint = _fingerprint(training, holdout, model, train, seeds[0], e0s, start, steps)
    if state_file is not None:
        fit.restore(state_file, fingerprint)
    if evaluated is not None:
        for entry in fit.state.history:
            evaluated(entry)
    batches = islice(epochs([e.n_atoms for e in examples], train.batch_atoms, seeds[1]), fit.state.step, steps)
    _run(fit, ([examples[i] for i in indices] for indices in batches), progress, evaluated, state_file, fingerprint)
    best_step, errors = fit.finish()
    save_member(network, out, extra={"member": member, "steps": steps, "best_step": best_step})
    return FitReport(
        history=fit.state.history,
        best_step=best_step,
        energy_mae=errors.get("valid_energy_mae"),
        force_mae=errors.get("valid_force_mae"),
        stress_mae=errors.get("valid_stress_mae"),
    )


# --- what goes into a fit ----------------------------------------------------------------------------------


def _split(
    frames: Sequence[LabelledFrame], valid: Sequence[LabelledFrame] | None, share: float, member: int
) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    if not frames:
        raise DataError("there are no labelled frames to train on")
    if valid is None:
        return leave_out(frames, share=share, member=member)
    shared = sorted({f.frame.uid for f in frames} & {f.frame.uid for f in valid})
    if shared:
        raise DataError(
            f"{len(shared)} validation frame(s) are also trained on", where=", ".join(shared[:5]), fix="remove them from one set"
        )
    return list(frames), list(valid)


def _species(frames: Sequence[LabelledFrame]) -> set[int]:
    return {int(z) for f in frames for z in f.frame.atoms.numbers}


def _symbols(numbers: set[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in sorted(numbers))


def _check_species(species: set[int], holdout: Sequence[LabelledFrame], e0s: Mapping[int, float]) -> None:
    if missing := species - set(e0s):
        raise DataError(f"no isolated-atom energy for {_symbols(missing)}", fix="give it, or fit it to the frames with fit_e0s")
    if unseen := _species(holdout) - species:
        raise DataError(
            f"validation frames hold {_symbols(unseen)}, which no training frame does", fix="add frames with it, or remove them"
        )


def _fresh(
    config: ModelConfig, species: Sequence[int], examples: Sequence[Example], e0s: Mapping[int, float], seed: int
) -> LEIGNN:
    atoms = sum(e.n_atoms for e in examples)
    edges = sum(len(e.graph.centre) for e in examples)
    return LEIGNN(
        config,
        species,
        e0s={z: e0s[z] for z in species},
        energy_scale=_force_scale(examples),
        mean_neighbours=max(1.0, edges / atoms),
        seed=seed,
    )


def _core_reach(frames: Sequence[LabelledFrame]) -> float:
    """Where the repulsive core begins, in sums of covalent radii: hot dense matter comes closer than atoms usually do."""
    contacts = (closest_contact(f.frame.atoms, REACH / CORE_MARGIN) for f in frames)
    return min([CORE_MARGIN * contact.ratio for contact in contacts if contact], default=REACH)


def _force_scale(examples: Sequence[Example]) -> float:
    """Root mean square force component, eV/Å."""
    squares = sum(float(e.forces.double().square().sum()) for e in examples)
    return max(LEAST_FORCE, math.sqrt(squares / sum(e.forces.numel() for e in examples)))


def _continued(start: Path, config: ModelConfig, species: Sequence[int], device: torch.device, dtype: torch.dtype) -> LEIGNN:
    network = load_member(start, device=str(device), dtype=dtype)
    if network.config != config:
        raise CheckpointError("the model to continue from has another architecture", where=str(start), fix="refit from scratch")
    if unseen := set(species) - set(network.species):
        raise CheckpointError(
            f"the model to continue from has not seen {_symbols(unseen)}", where=str(start), fix="refit from scratch"
        )
    return network


def _fingerprint(
    training: Sequence[LabelledFrame],
    holdout: Sequence[LabelledFrame],
    model: ModelConfig,
    train: TrainConfig,
    seed: np.random.SeedSequence,
    e0s: Mapping[int, float],
    start: Path | None,
    steps: int,
) -> str:
    """Digest of everything the outcome of a fit depends on."""
    return digest_json(
        {
            "package": __version__,
            "model": model.digest(),
            "train": train.digest(),
            "training": [(f.frame.uid, _labels_digest(f.labels)) for f in training],
            "holdout": [(f.frame.uid, _labels_digest(f.labels)) for f in holdout],
            "seed": [str(seed.entropy), *map(int, seed.spawn_key)],
            "e0s": sorted((int(z), float(e)) for z, e in e0s.items()),
            "start": None if start is None else digest_file(start),
            "steps": steps,
        }
    )


def _labels_digest(labels: Labels) -> str:
    parts = [np.ravel(part) for part in (labels.energy, labels.forces, labels.stress) if part is not None]
    return hashlib.sha256(np.concatenate(parts, dtype=float).tobytes()).hexdigest()


def _run(
    fit: Fit,
    batches: Iterator[list[Example]],
    progress: ProgressHook | None,
    evaluated: EvaluationHook | None,
    state_file: Path | None,
    fingerprint: str,
) -> None:
    """Take the steps that are left; report and save now and then."""
    saved = reported = time.perf_counter()
    for batch in batches:
        known = len(fit.state.history)
        tally = fit.advance(batch)
        if evaluated is not None:
            for entry in fit.state.history[known:]:
                evaluated(entry)
        now = time.perf_counter()
        if state_file is not None and (now - saved >= RESUME_EVERY_S or fit.state.step == fit.steps):
            fit.save(state_file, fingerprint)
            saved = now
        if progress is not None and (now - reported >= REPORT_EVERY_S or fit.state.step == fit.steps):
            progress(fit.state.step, fit.steps, tally.means())
            reported = now
