"""One member being fitted, step by step: warm-up and cosine, a running average of the weights, the best kept.

Everything is eager: compiled double backward has been seen to return wrong gradients silently.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from al_leignn.config import TrainConfig
from al_leignn.errors import RunError
from al_leignn.model.leignn import LEIGNN
from al_leignn.shapes import Float
from al_leignn.train.batches import Example, cut, join, pack
from al_leignn.train.loss import Tally, Units, Weights, measure
from al_leignn.train.optimiser import STATE, optimisers
from al_leignn.train.resume import Progress, load_progress, save_progress
from al_leignn.train.schedule import rate_factor

EVALUATIONS = 20
"""Evaluations on the holdout during one fit; each costs about as much as a third of an epoch of the holdout's size."""


class Fit:
    """One member being fitted: the network, its optimiser, the running average and the best weights so far."""

    def __init__(
        self,
        network: LEIGNN,
        units: Units,
        holdout: Sequence[Example],
        config: TrainConfig,
        steps: int,
    ) -> None:
        self.network = network
        self.holdout = [
            join([holdout[i] for i in run]) for run in pack([e.n_atoms for e in holdout], range(len(holdout)), config.batch_atoms)
        ]
        self.config = config
        self.steps = steps
        self.units = units
        self.parameters = dict(network.named_parameters())
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optimisers = optimisers(network, config.learning_rate, config.weight_decay)
        self.state = Progress()
        self.started = time.perf_counter()
        self.recent = Tally.empty()
        self.pieces = 1

    def advance(self, examples: Sequence[Example]) -> Tally:
        """One optimiser step on one batch; returns the errors before it.

        A batch that does not fit into the memory of the device is computed in pieces, and so are all after it: their gradients
        add up to those of the whole. (Tried by raising the error on a CPU; it has not been seen to happen on a GPU.)
        """
        state = self.state
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.config.learning_rate * rate_factor(state.step, self.steps)
        tally = self._gradients(examples, Weights.at(state.step / self.steps, self.config))
        parameters = list(self.parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip)
        if not math.isfinite(norm.item()):
            raise RunError(
                f"the loss is no finite number at step {state.step}", fix="lower train.learning_rate, or look for odd labels"
            )
        for optimiser in self.optimisers:
            optimiser.step()
        state.step += 1
        keep = min(self.config.ema, (1 + state.step) / (10 + state.step))
        with torch.no_grad():
            for name, p in self.parameters.items():
                self.average[name].lerp_(p, 1.0 - keep)
        self.recent += tally
        if state.step % math.ceil(self.steps / EVALUATIONS) == 0 or state.step == self.steps:
            self._evaluate()
        return tally

    def _gradients(self, examples: Sequence[Example], weights: Weights) -> Tally:
        """Leave the gradient of the loss of one batch in the parameters."""
        while True:
            try:
                return self._accumulate(cut(examples, self.pieces), weights)
            except torch.OutOfMemoryError:
                if self.pieces >= len(examples):
                    raise RunError(
                        "there is not enough memory for the gradient of a single frame",
                        where=f"{examples[0].n_atoms} atoms, {len(examples[0].graph.centre)} edges",
                        fix="train on another device or on smaller cells, or lower model.cutoff or model.features",
                    ) from None
            # Outside of the handler: the error keeps the tensors of the failed attempt alive.
            self.pieces *= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _accumulate(self, parts: Sequence[Sequence[Example]], weights: Weights) -> Tally:
        """Sum the gradients of the parts; each term weighs as its share of the whole batch's frames, atoms or stresses."""
        self.network.zero_grad(set_to_none=True)
        whole = _counts([e for part in parts for e in part])
        total = Tally.empty()
        for part in parts:
            batch = join(part)
            out = self.network(batch.graph, forces=True, stress=batch.any_stress, create_graph=True)
            frames, atoms, stresses = (_counts(part) / whole).tolist()
            own = Weights(weights.energy * frames, weights.force * atoms, weights.stress * stresses)
            loss, tally = measure(out, batch, self.units, own)
            loss.backward(inputs=list(self.parameters.values()))
            total += tally
        total.values[1, 0] = 1.0  # one loss, whatever the number of parts
        return total

    def _evaluate(self) -> None:
        """Add to the history; keep the averaged weights if they are the best on the holdout."""
        state = self.state
        entry = {
            "step": float(state.step),
            "lr": self.config.learning_rate * rate_factor(state.step, self.steps),
            "seconds": self.seconds(),
        }
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

    def finish(self) -> tuple[int, dict[str, float]]:
        """Leave the best weights in the network (the final average where nothing was held out).

        Returns
        -------
        step, entry
            The step they are of, and its entry of the history (empty before the first step).
        """
        judged = bool(self.holdout and self.state.history)
        _copy(self.best if judged else self.average, self.parameters)
        step = self.state.best_step if judged else self.state.step
        return step, next((entry for entry in self.state.history if entry["step"] == step), {})

    def seconds(self) -> float:
        """Wall seconds of this fit, those before a resume included."""
        return self.state.seconds + time.perf_counter() - self.started

    def save(self, path: Path, fingerprint: str) -> None:
        """Write everything `restore` needs."""
        tensors = {"recent": self.recent.values}
        for name, p in self.parameters.items():
            tensors |= {f"now/{name}": p.detach(), f"average/{name}": self.average[name], f"best/{name}": self.best[name]}
            for optimiser in self.optimisers:
                tensors |= {f"{key}/{name}": value for key, value in optimiser.state.get(p, {}).items()}
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
        names = {p: name for name, p in self.parameters.items()}
        for optimiser in self.optimisers:
            for p in (p for group in optimiser.param_groups for p in group["params"]):
                # Parameters the network does not use get no gradient, and the optimiser keeps nothing for them.
                kept = {key: tensors[f"{key}/{names[p]}"].to(p.device) for key in STATE if f"{key}/{names[p]}" in tensors}
                if kept:
                    optimiser.state[p] = kept


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in source.items():
            target[name].copy_(tensor)


def _counts(examples: Sequence[Example]) -> Float[np.ndarray, "3"]:
    """Frames, atoms, and frames with a stress (at least 1, to divide by)."""
    return np.array([len(examples), sum(e.n_atoms for e in examples), max(1, sum(e.has_stress for e in examples))], dtype=float)
