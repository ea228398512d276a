"""Labelled frames as tensors: graphs are built once per fit, then only joined into batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from al_leignn.core import LabelledFrame
from al_leignn.model.graph import Graph, build_graph, collate
from al_leignn.shapes import Bool, Float

_VOIGT = ((0, 5, 4), (5, 1, 3), (4, 3, 2))
"""Place in xx yy zz yz xz xy of each element of a symmetric 3x3 matrix."""


@dataclass(frozen=True)
class Example:
    """One labelled frame on the device of the fit; `stress` is zero and `has_stress` false without a stress label.

    Graph and energy are float64 (positions and energies may be large, what is learned from them is not).
    """

    graph: Graph
    n_atoms: int
    energy: Float[Tensor, ""]
    forces: Float[Tensor, "n_atoms 3"]
    stress: Float[Tensor, "3 3"]
    has_stress: bool


@dataclass(frozen=True)
class Batch:
    """Several examples joined. Energies are totals in eV, forces eV/Å, stress eV/Å^3."""

    graph: Graph
    n_atoms: Float[Tensor, " structures"]
    energy: Float[Tensor, " structures"]
    forces: Float[Tensor, "atoms 3"]
    stress: Float[Tensor, "structures 3 3"]
    has_stress: Bool[Tensor, " structures"]
    any_stress: bool
    """Whether the stress is worth computing at all; kept beside `has_stress` so that asking needs no device sync."""


def make_examples(
    frames: Sequence[LabelledFrame], cutoff: float, species: Sequence[int], dtype: torch.dtype, device: torch.device
) -> list[Example]:
    """Build the graph and the label tensors of every frame.

    Stress labels of frames that are not periodic in three dimensions are left out: without a volume they mean nothing.
    """
    return [_example(f, build_graph(f.frame.atoms, cutoff, species), dtype, device) for f in frames]


def _example(labelled: LabelledFrame, graph: Graph, dtype: torch.dtype, device: torch.device) -> Example:
    labels = labelled.labels
    voigt = np.zeros(6) if labels.stress is None else labels.stress
    return Example(
        graph=graph.to(device),
        n_atoms=len(labelled.frame.atoms),
        energy=torch.tensor(labels.energy, dtype=torch.float64, device=device),
        forces=torch.as_tensor(labels.forces, dtype=dtype, device=device),
        stress=torch.as_tensor(voigt[np.array(_VOIGT)], dtype=dtype, device=device),
        has_stress=labels.stress is not None and bool(graph.periodic.all()),
    )


def join(examples: Sequence[Example]) -> Batch:
    """Join examples into one batch."""
    device = examples[0].energy.device
    return Batch(
        graph=collate([e.graph for e in examples]),
        n_atoms=torch.tensor([float(e.n_atoms) for e in examples], dtype=examples[0].energy.dtype, device=device),
        energy=torch.stack([e.energy for e in examples]),
        forces=torch.cat([e.forces for e in examples]),
        stress=torch.stack([e.stress for e in examples]),
        has_stress=torch.tensor([e.has_stress for e in examples], device=device),
        any_stress=any(e.has_stress for e in examples),
    )


def cut(examples: Sequence[Example], pieces: int) -> list[list[Example]]:
    """Cut a batch into at most `pieces` runs of about equally many edges, none of them empty."""
    edges = np.cumsum([len(e.graph.centre) + 1 for e in examples])
    place = np.minimum((edges - 1) * pieces // edges[-1], pieces - 1)
    return [[e for e, p in zip(examples, place.tolist(), strict=True) if p == piece] for piece in np.unique(place).tolist()]


def pack(sizes: Sequence[int], order: Sequence[int], batch_atoms: int) -> list[list[int]]:
    """Cut `order` into runs of about `batch_atoms` atoms: a run ends with the frame that reaches the mark.

    Every frame is in exactly one run, however large it is.
    """
    runs: list[list[int]] = []
    held = batch_atoms
    for i in order:
        if held >= batch_atoms:
            runs.append([])
            held = 0
        runs[-1].append(int(i))
        held += sizes[i]
    return runs


def epochs(sizes: Sequence[int], batch_atoms: int, seed: np.random.SeedSequence) -> Iterator[list[int]]:
    """Batches without end, as indices of frames; each epoch visits every frame once in a new order.

    The order of epoch n derives from `seed` and n alone, so a resumed fit finds its place by counting batches.
    """
    epoch = 0
    while True:
        child = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, epoch))
        yield from pack(sizes, np.random.default_rng(child).permutation(len(sizes)).tolist(), batch_atoms)
        epoch += 1
