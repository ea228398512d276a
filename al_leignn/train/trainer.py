"""Fitting one member: AdamW with warm-up and cosine, a running average of the weights, the best of them kept.

Everything is eager: compiled double backward has been seen to return wrong gradients silently.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from al_leignn import __version__
from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import LabelledFrame
from al_leignn.errors import CheckpointError, DataError, RunError
from al_leignn.model.checkpoint import load_member, save_member
from al_leignn.model.leignn import LEIGNN
from al_leignn.store import digest_file, digest_json
from al_leignn.train.batches import Batch, Example, epochs, join, make_examples, pack
from al_leignn.train.loss import Tally, Units, Weights, measure
from al_leignn.train.resume import Progress, load_progress, save_progress
from al_leignn.train.split import leave_out

EVALUATIONS = 20
"""Evaluations on the holdout during one fit; each costs about as much as a third of an epoch of the holdout's size."""

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""

FINAL_RATE = 0.01
"""Learning rate at the end relative to its peak."""

BETAS = (0.9, 0.99)
"""Decay of AdamW's running moments. Fits are short, so the second one forgets the start sooner than is usual."""

WARM_START_RATE = 0.5
"""Peak learning rate of a warm start relative to a fit from scratch, so that what was learned is not shaken off."""

LEAST_FORCE = 0.05
"""Smallest force unit, eV/Å: a set of equilibrium structures has forces that are noise."""

RESUME_EVERY_S = 20.0
REPORT_EVERY_S = 0.5

ProgressHook = Callable[[int, int, Mapping[str, float]], None]


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
    valid
        Validation frames. If given, no block of `frames` is left out.
    resume_dir
        Folder for the state of an unfinished fit. A fit that finds its own state there goes on from it, and its
        final weights equal those of an uninterrupted one (on a CPU).

    Raises
    ------
    DataError
        If there are no frames, `e0s` misses a species, or validation frames are also trained on.
    CheckpointError
        If `start` has another architecture or lacks a species of `frames`.
    RunError
        If the loss stops being a finite number.
    """
    training, holdout = _split(frames, valid, train.holdout, member)
    _check_species(training, holdout, e0s)
    device, dtype = _device(train.device), getattr(torch, train.dtype)
    species = sorted({int(z) for f in (*training, *holdout) for z in f.frame.atoms.numbers})
    seeds = [np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, member, use)) for use in range(2)]
    if start is None:
        examples = make_examples(training, model.cutoff, species, dtype, device)
        network = _fresh(model, species, examples, e0s, int(seeds[0].generate_state(1)[0])).to(device, dtype)
    else:
        network = _continued(start, model, species, device, dtype)
        examples = make_examples(training, model.cutoff, network.species, dtype, device)
    held_out = make_examples(holdout, model.cutoff, network.species, dtype, device)

    rate = train.learning_rate * (1.0 if start is None else WARM_START_RATE)
    fit = _Fit(network, examples, held_out, train, rate, steps)
    state_file = None if resume_dir is None else resume_dir / f"member-{member}.safetensors"
    fingerprint = _fingerprint(training, holdout, model, train, seeds[0], e0s, start, steps)
    if state_file is not None:
        fit.restore(state_file, fingerprint)
    batches = islice(epochs([e.n_atoms for e in examples], train.batch_atoms, seeds[1]), fit.state.step, steps)
    _run(fit, batches, progress, state_file, fingerprint)
    report = fit.finish()
    save_member(network, out, extra={"member": member, "steps": steps, "best_step": report.best_step})
    if state_file is not None:
        state_file.unlink(missing_ok=True)
    return report


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


def _check_species(training: Sequence[LabelledFrame], holdout: Sequence[LabelledFrame], e0s: Mapping[int, float]) -> None:
    missing = sorted({int(z) for f in (*training, *holdout) for z in f.frame.atoms.numbers} - set(e0s))
    if missing:
        raise DataError(
            f"no isolated-atom energy for atomic number(s) {missing}", fix="give them, or fit them to the frames with fit_e0s"
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


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


def _force_scale(examples: Sequence[Example]) -> float:
    """Root mean square force component, eV/Å."""
    squares = sum(float(e.forces.double().square().sum()) for e in examples)
    return max(LEAST_FORCE, math.sqrt(squares / sum(e.forces.numel() for e in examples)))


def _continued(start: Path, config: ModelConfig, species: Sequence[int], device: torch.device, dtype: torch.dtype) -> LEIGNN:
    network = load_member(start, device=str(device), dtype=dtype)
    if network.config != config:
        raise CheckpointError("the model to continue from has another architecture", where=str(start), fix="refit from scratch")
    unknown = sorted(set(species) - set(network.species))
    if unknown:
        raise CheckpointError(
            f"the model to continue from has not seen atomic number(s) {unknown}", where=str(start), fix="refit from scratch"
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
            "training": [(f.frame.uid, f.labels.energy) for f in training],
            "holdout": [(f.frame.uid, f.labels.energy) for f in holdout],
            "seed": [str(seed.entropy), *map(int, seed.spawn_key)],
            "e0s": sorted((int(z), float(e)) for z, e in e0s.items()),
            "start": None if start is None else digest_file(start),
            "steps": steps,
        }
    )


# --- the fit itself ----------------------------------------------------------------------------------------


class _Fit:
    """One member being fitted: the network, its optimiser, the running average and the best weights so far."""

    def __init__(
        self,
        network: LEIGNN,
        training: Sequence[Example],
        holdout: Sequence[Example],
        config: TrainConfig,
        rate: float,
        steps: int,
    ) -> None:
        self.network = network
        self.training = training
        self.holdout = [
            join([holdout[i] for i in run]) for run in pack([e.n_atoms for e in holdout], range(len(holdout)), config.batch_atoms)
        ]
        self.config = config
        self.rate = rate
        self.steps = steps
        self.units = Units.of(_force_scale(training))
        self.parameters = dict(network.named_parameters())
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optimiser = _optimiser(network, rate, config.weight_decay)
        self.state = Progress()
        self.started = time.perf_counter()
        self.recent = Tally.empty()

    def advance(self, batch: Batch) -> Tally:
        """One optimiser step; returns the errors before it."""
        state = self.state
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * rate_factor(state.step, self.steps)
        out = self.network(batch.graph, forces=True, stress=batch.any_stress, create_graph=True)
        loss, tally = measure(out, batch, self.units, Weights.at(state.step / self.steps, self.config))
        self.optimiser.zero_grad(set_to_none=True)
        parameters = list(self.parameters.values())
        loss.backward(inputs=parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip)
        if not math.isfinite(norm.item()):
            raise RunError(
                f"the loss is no finite number at step {state.step}", fix="lower train.learning_rate, or look for odd labels"
            )
        self.optimiser.step()
        state.step += 1
        keep = min(self.config.ema, (1 + state.step) / (10 + state.step))
        with torch.no_grad():
            for name, p in self.parameters.items():
                self.average[name].lerp_(p, 1.0 - keep)
        self.recent += tally
        if state.step % math.ceil(self.steps / EVALUATIONS) == 0 or state.step == self.steps:
            self._evaluate()
        return tally

    def _evaluate(self) -> None:
        """Add to the history; keep the averaged weights if they are the best on the holdout."""
        state = self.state
        entry = {"step": float(state.step), "lr": self.rate * rate_factor(state.step, self.steps), "seconds": self.seconds()}
        entry |= {f"train_{name}": value for name, value in self.recent.means().items()}
        self.recent = Tally.empty()
        if self.holdout:
            errors = self._holdout_errors()
            entry |= {f"valid_{name}": value for name, value in errors.items()}
            if state.best_score is None or errors["loss"] < state.best_score:
                state.best_step, state.best_score = state.step, errors["loss"]
                _copy(self.average, self.best)
        state.history.append(entry)

    def _holdout_errors(self) -> dict[str, float]:
        """Errors of the averaged weights; the loss has the weights of the end of the fit, so that scores compare."""
        current = {name: p.detach().clone() for name, p in self.parameters.items()}
        _copy(self.average, self.parameters)
        tally = Tally.empty()
        for batch in self.holdout:
            out = self.network(batch.graph, forces=True, stress=batch.any_stress)
            tally += measure(out, batch, self.units, Weights.at(1.0, self.config))[1]
        _copy(current, self.parameters)
        return tally.means()

    def finish(self) -> FitReport:
        """Leave the best weights in the network (the final average where nothing was held out)."""
        chosen = self.best if self.holdout and self.state.history else self.average
        _copy(chosen, self.parameters)
        best_step = self.state.best_step if self.holdout else self.state.step
        errors = next((e for e in self.state.history if e["step"] == best_step), {})
        return FitReport(
            history=self.state.history,
            best_step=best_step,
            energy_mae=errors.get("valid_energy_mae"),
            force_mae=errors.get("valid_force_mae"),
            stress_mae=errors.get("valid_stress_mae"),
        )

    def seconds(self) -> float:
        """Wall seconds of this fit, those before a resume included."""
        return self.state.seconds + time.perf_counter() - self.started

    def save(self, path: Path, fingerprint: str) -> None:
        """Write everything `restore` needs."""
        tensors = {"recent": self.recent.values}
        for name, p in self.parameters.items():
            tensors |= {f"now/{name}": p.detach(), f"average/{name}": self.average[name], f"best/{name}": self.best[name]}
            tensors |= {f"{key}/{name}": value for key, value in self.optimiser.state[p].items()}
        save_progress(path, replace(self.state, seconds=self.seconds()), tensors, fingerprint)

    def restore(self, path: Path, fingerprint: str) -> None:
        """Go on from the state in `path`, if it is this fit's."""
        found = load_progress(path, fingerprint)
        if found is None:
            return
        self.state, tensors = found
        self.recent = Tally(tensors["recent"])
        for name, p in self.parameters.items():
            for prefix, target in (("now", p), ("average", self.average[name]), ("best", self.best[name])):
                with torch.no_grad():
                    target.copy_(tensors[f"{prefix}/{name}"])
            self.optimiser.state[p] = {key: tensors[f"{key}/{name}"].to(p.device) for key in ("step", "exp_avg", "exp_avg_sq")}


def _run(
    fit: _Fit, batches: Iterator[list[int]], progress: ProgressHook | None, state_file: Path | None, fingerprint: str
) -> None:
    """Take the steps that are left; report and save now and then."""
    saved = reported = time.perf_counter()
    for indices in batches:
        tally = fit.advance(join([fit.training[i] for i in indices]))
        now = time.perf_counter()
        if state_file is not None and now - saved >= RESUME_EVERY_S:
            fit.save(state_file, fingerprint)
            saved = now
        if progress is not None and (now - reported >= REPORT_EVERY_S or fit.state.step == fit.steps):
            progress(fit.state.step, fit.steps, tally.means())
            reported = now


def rate_factor(step: int, steps: int) -> float:
    """Learning rate at a step relative to its peak: linear rise, then half a cosine down to `FINAL_RATE`."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    fall = (step - rise) / max(1, steps - rise)
    return FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * fall))


def _optimiser(network: LEIGNN, rate: float, decay: float) -> torch.optim.AdamW:
    """Decoupled weight decay acts on matrices only: biases and scales have no direction to overfit in."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in source.items():
            target[name].copy_(tensor)
