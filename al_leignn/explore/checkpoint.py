"""Exact resume of MD: all that a batch of walkers is, in one file that cannot be half written.

When a checkpoint is written, the neighbour lists of the running batch are searched anew, as they are when it is read back: on a
CPU a resumed run is the same to the last bit as one that was never interrupted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from al_leignn.explore.batch import Batch, Settings, Walker, WalkerReport, initial_state, new_driver, structures_at
from al_leignn.explore.driver import Potential, Sight
from al_leignn.model.unfinished import load_state, save_state

_KIND = "run"
_OF_STATE = ("positions", "velocities", "forces", "cells", "energy", "stress", "targets", "pressures", "heat")
_OF_BATCH = ("bonded", "start_volume", "start_energy", "temperature_sum")


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state.

    Attributes
    ----------
    every
        Steps between checkpoints.
    fingerprint
        Names the run, so that no other run picks its state up.
    """

    path: Path
    every: int
    fingerprint: str

    def save(self, batch: Batch, step: int, reports: dict[int, WalkerReport], position: int) -> None:
        """Write the state after `step` steps; `position` is where the samples so far end in their file."""
        batch.driver.neighbours.refresh(batch.state.positions, batch.state.cells)
        tensors = {name: getattr(batch.state, name) for name in _OF_STATE} | {name: getattr(batch, name) for name in _OF_BATCH}
        tensors["homes"] = torch.from_numpy(np.array(batch.driver.neighbours.homes))
        if batch.driver.bias is not None and batch.driver.bias.origin is not None:
            tensors["bias_origin"] = batch.driver.bias.origin
        about = {
            "step": step,
            "position": position,
            "walkers": [walker.index for walker in batch.walkers],
            "streams": [stream.bit_generator.state for stream in batch.state.streams],
            "reports": [asdict(report) for report in reports.values()],
        }
        on_cpu = {name: t.cpu().contiguous().clone() for name, t in tensors.items()}
        save_state(self.path, _KIND, about, on_cpu, self.fingerprint)

    def matches(self) -> bool:
        """Whether there is a state of this run."""
        return load_state(self.path, _KIND, self.fingerprint) is not None

    def load(self, potential: Potential, walkers: Sequence[Walker], settings: Settings) -> "Resumed | None":
        """The run as it was saved; None if the file is missing, damaged or another run's."""
        read = load_state(self.path, _KIND, self.fingerprint)
        if read is None:
            return None
        about, tensors = read
        reports = {report["index"]: WalkerReport(**report) for report in about["reports"]}
        by_index = {walker.index: walker for walker in walkers}
        batch = _batch_of(potential, [by_index[index] for index in about["walkers"]], settings, tensors, about["streams"])
        return Resumed(batch, about["step"], reports, about["position"])


@dataclass(frozen=True)
class Resumed:
    """A run that goes on."""

    batch: Batch
    step: int
    reports: dict[int, WalkerReport]
    """Of the walkers that have ended."""
    position: int
    """Where their samples end in the file."""


def _batch_of(
    potential: Potential,
    walkers: list[Walker],
    settings: Settings,
    tensors: dict[str, Tensor],
    streams: Sequence[dict[str, object]],
) -> Batch:
    tensors = {name: tensor.to(potential.device) for name, tensor in tensors.items()}
    state = initial_state(walkers, settings.config, tensors["cells"], np.random.SeedSequence(0))
    for name in _OF_STATE:
        setattr(state, name, tensors[name])
    for stream, saved in zip(state.streams, streams, strict=True):
        stream.bit_generator.state = saved
    structures = structures_at(walkers, settings.config, tensors["positions"], tensors["cells"])
    driver = new_driver(potential, structures, settings, list(tensors["homes"].cpu().numpy()))
    if driver.bias is not None and "bias_origin" in tensors:
        driver.bias = driver.bias.starting(tensors["bias_origin"])
    nothing = torch.zeros_like(state.energy)
    return Batch(
        settings=settings,
        walkers=walkers,
        state=state,
        driver=driver,
        sight=Sight(contact=nothing + torch.inf, alone=~tensors["bonded"], bias=nothing, deviations=None),
        temperature=state.temperature(),
        **{name: tensors[name] for name in _OF_BATCH},
    )
