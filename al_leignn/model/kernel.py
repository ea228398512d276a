"""Fast inference on a CPU: the passes of native/kernel.cpp, compiled at first use, checked, and called with a model's weights.

Nothing here is needed: whatever stands in the way (no compiler, another preset, a result that differs from the network's),
`Committee` evaluates the network itself, with a `KernelWarning` where a user would not expect it.
"""

import copy
import ctypes
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from torch import Tensor
from torch.nn import functional

from al_leignn.model.build import KernelError, library
from al_leignn.model.graph import Graph, build_graph, select_atoms
from al_leignn.model.layers import Perceptron
from al_leignn.model.leignn import LEIGNN, Output
from al_leignn.model.local import LocalNetwork, Message, Update
from al_leignn.shapes import Float, Int

_TOLERANCE = {torch.float32: 5e-4, torch.float64: 1e-9}
"""Largest difference from the network in float64, relative to the largest value."""

_ROUNDING = 10.0
"""The same as a multiple of the network's own rounding error, where that is more."""

_JITTERS, _JITTER = 8, 1e-4
"""Structures on which that error is looked at, since it varies by factors, and by how much they differ, Å."""

_PARTS = (("energies", "eV"), ("forces", "eV/Å"), ("stress", "eV/Å^3"))

_TRIAL_ATOMS = 128
"""Of a larger graph, this many neighbouring atoms are compared with the network."""


class KernelWarning(RuntimeWarning):
    """A potential that could be evaluated by the kernel is not, and takes several times longer."""


class _Structures(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("n_atoms", "n_structures", "n_edges", "widest")] + [
        (name, ctypes.c_void_p) for name in ("species", "structure", "first", "neighbour", "positions", "cell", "shift")
    ]


class _Pairs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("count", "neighbour", "kind", "x", "y", "z")]


class _Elements(ctypes.Structure):
    _fields_ = [
        ("cutoff", ctypes.c_double),
        ("scale", ctypes.c_double),
        ("n", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("e0", "charge", "radius")),
    ]


class _Results(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("node_energy", "forces", "virial")]


@dataclass
class _Layout:
    """What graphs made from one neighbour search have in common, checked and as the kernel wants it."""

    made_of: tuple[Tensor, ...]
    species: Int[Tensor, " atoms"]
    structure: Int[Tensor, " atoms"]
    neighbour: Int[Tensor, " edges"]
    shift: Float[Tensor, "edges 3"]
    first: Int[Tensor, " atoms_and_1"]
    """Where each atom's edges begin, and their number."""
    widest: int
    """Most edges of an atom."""


class Kernel:
    """Members of a committee, ready for fast inference on a CPU.

    Weights are copied when it is made; `weights_mark` tells whether they have changed since. Energies, forces and stress of
    every member are compared with its network in float64: when the kernel is made, on random structures, and again on the
    first graph that it is used for.

    Parameters
    ----------
    members
        Of preset `local`, on the CPU, alike in everything but their weights.

    Raises
    ------
    KernelError
        It cannot be compiled, or does not reproduce a member.
    """

    def __init__(self, members: Sequence[LEIGNN]) -> None:
        first = members[0]
        self.dtype = first.dtype
        self._members = list(members)
        self._library = library(first.config.features, first.config.radial, first.dtype)
        lanes = int(self._library.lanes())
        self._weights = [torch.cat([t.detach().reshape(-1) for t in _weights(member, lanes)]) for member in members]
        self._charge = torch.tensor(first.species, dtype=torch.float64)
        self._radius = torch.tensor([first.core_reach * covalent_radii[z] for z in first.species], dtype=torch.float64)
        self._e0 = [torch.tensor([m.e0s[z] for z in m.species], dtype=torch.float64) for m in members]
        self._last_layout: _Layout | None = None
        self._memory = torch.empty(0, dtype=torch.uint8)
        for atoms in _trial_structures(first.species, first.core_reach):
            self._compare(build_graph(atoms, first.cutoff, first.species))
        self._compared_in_use = False

    def evaluate(self, graph: Graph, members: Sequence[int], *, stress: bool) -> list[Output] | None:
        """What `LEIGNN.forward` says for each of the chosen members; None for a graph that must be left to it.

        That is one with edges that have no reverse, or one that the network would refuse.

        Raises
        ------
        KernelError
            On the first graph with finite positions, a result is not the network's.
        """
        layout = self._layout(graph)
        if layout is None:
            return None
        if not self._compared_in_use and bool(torch.isfinite(graph.positions).all()):
            self._compare(_part(graph))
            self._compared_in_use = True
        return self._evaluate(graph, layout, members, stress=stress)

    def _evaluate(self, graph: Graph, layout: _Layout, members: Sequence[int], *, stress: bool) -> list[Output]:
        positions, cell = (t.double().contiguous() for t in (graph.positions, graph.cell))
        structures = _Structures(
            graph.n_atoms, graph.n_structures, len(layout.neighbour), layout.widest,
            *_pointers(layout.species, layout.structure, layout.first, layout.neighbour, positions, cell, layout.shift),
        )  # fmt: skip
        threads = torch.get_num_threads()
        n_edges = len(layout.neighbour)
        count = torch.empty(graph.n_atoms, dtype=torch.int32)
        ends = torch.empty(2, n_edges, dtype=torch.int32)
        vectors = torch.empty(3, n_edges, dtype=self.dtype)
        pairs = _Pairs(*_pointers(count, *ends, *vectors))
        cutoff = self._members[0].cutoff
        self._library.find_pairs(ctypes.byref(structures), ctypes.c_double(cutoff), threads, ctypes.byref(pairs))
        # Zero where stress is not defined.
        density = (graph.periodic / graph.volume()).view(-1, 1, 1) if stress else None
        return [self._member(k, graph, structures, pairs, threads, density) for k in members]

    def _member(
        self, k: int, graph: Graph, structures: _Structures, pairs: _Pairs, threads: int, density: Tensor | None
    ) -> Output:
        member = self._members[k]
        n_species, layers = len(member.species), member.config.layers
        size = self._library.workspace_size(ctypes.byref(structures), layers, ctypes.c_int64(n_species), threads)
        # Taken away during the call, so that another thread makes its own.
        memory, self._memory = self._memory, torch.empty(0, dtype=torch.uint8)
        if size > len(memory):
            memory = torch.empty(size, dtype=torch.uint8)
        elements = _Elements(member.cutoff, member.energy_scale, n_species, *_pointers(self._e0[k], self._charge, self._radius))
        node_energy = torch.empty(graph.n_atoms, dtype=torch.float64)
        forces = torch.empty(graph.n_atoms, 3, dtype=torch.float64)
        virial = torch.empty(graph.n_structures, 3, 3, dtype=torch.float64)
        results = _Results(*_pointers(node_energy, forces, virial))
        weights, workspace = _pointers(self._weights[k], memory)
        self._library.evaluate(
            ctypes.byref(structures), ctypes.byref(pairs), ctypes.byref(elements), weights, layers, workspace, threads,
            ctypes.byref(results),
        )  # fmt: skip
        self._memory = memory
        energy = node_energy.new_zeros(graph.n_structures).index_add(0, graph.structure, node_energy)
        total = None if density is None else ((virial + virial.transpose(1, 2)) * (0.5 * density)).to(self.dtype)
        return Output(energy, node_energy, forces.to(self.dtype), total)

    def _layout(self, graph: Graph) -> _Layout | None:
        """None where the kernel must not read on: edges without reverse, indices or shapes that do not belong together."""
        made_of = (graph.species, graph.structure, graph.centre, graph.neighbour, graph.shift)
        last = self._last_layout
        if last is None or any(now is not before for now, before in zip(made_of, last.made_of, strict=True)):
            species, structure, centre, neighbour = (t.long().contiguous() for t in made_of[:4])
            shift = graph.shift.double().contiguous()
            n, n_edges = len(species), len(centre)
            if not (len(structure) == n and len(neighbour) == n_edges and shift.shape == (n_edges, 3)):
                return None
            if not (_within(species, len(self._charge)) and _within(structure, graph.n_structures)):
                return None
            if not (_within(centre, n) and _within(neighbour, n)):
                return None
            first = torch.empty(n + 1, dtype=torch.int64)
            arrays = _pointers(centre, neighbour, shift, first)
            widest = self._library.index_edges(ctypes.c_int64(n), ctypes.c_int64(n_edges), *arrays)
            if widest < 0:
                return None
            last = self._last_layout = _Layout(made_of, species, structure, neighbour, shift, first, widest)
        fits = graph.positions.shape == (len(last.species), 3) and graph.cell.shape == (graph.n_structures, 3, 3)
        return last if fits else None

    def _compare(self, graph: Graph) -> None:
        """Every member with its network in float64; raises `KernelError` where they differ.

        By more than rounding, that is: in structures unlike any it was trained on, a network itself may lose more digits.
        """
        layout = self._layout(graph)
        assert layout is not None
        outputs = self._evaluate(graph, layout, range(len(self._members)), stress=True)
        for k, (member, output, e0) in enumerate(zip(self._members, outputs, self._e0, strict=True)):
            e0_of_atom = e0[graph.species]
            truth = _parts(copy.deepcopy(member).double()(graph, stress=True), e0_of_atom)
            errors = _largest_differences(_parts(output, e0_of_atom), truth)
            sizes = [float(expected.abs().max()) for expected in truth]
            allowed = [_TOLERANCE[self.dtype] * (size + 1e-3 * member.energy_scale) for size in sizes]
            if _within_bounds(errors, allowed):
                continue
            rounding = _rounding(member, graph, e0_of_atom)
            allowed = [max(known, _ROUNDING * noise) for known, noise in zip(allowed, rounding, strict=True)]
            if not _within_bounds(errors, allowed):
                formula = "".join(chemical_symbols[z] for z in member.species)
                worst = next(n for n, (error, bound) in enumerate(zip(errors, allowed, strict=True)) if not error <= bound)
                name, unit = _PARTS[worst]
                raise KernelError(
                    f"{name} of member {k} differ from the network's by {errors[worst]:.1e} {unit}, "
                    f"of {sizes[worst]:.1e} at most ({graph.n_atoms} atoms, species {formula}, {self.dtype})"
                )


def _parts(output: Output, e0_of_atom: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Energies of atoms without those of isolated ones, forces and stress, in float64."""
    assert output.forces is not None
    assert output.stress is not None
    return output.node_energy.detach() - e0_of_atom, output.forces.detach().double(), output.stress.detach().double()


def _largest_differences(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> list[float]:
    return [float((one - other).abs().max()) for one, other in zip(found, expected, strict=True)]


def _rounding(member: LEIGNN, graph: Graph, e0_of_atom: Tensor) -> list[float]:
    """How far a network in its own precision is from itself in float64, at worst, where atoms hardly move."""
    exact, random = copy.deepcopy(member).double(), torch.Generator().manual_seed(0)
    tried = []
    for _ in range(_JITTERS):
        step = _JITTER * torch.randn(graph.positions.shape, generator=random, dtype=torch.float64)
        moved = replace(graph, positions=graph.positions + step.to(graph.positions.dtype))
        own, truth = (_parts(network(moved, stress=True), e0_of_atom) for network in (member, exact))
        tried.append(_largest_differences(own, truth))
    return [max(errors) for errors in zip(*tried, strict=True)]


def _within_bounds(errors: Sequence[float], allowed: Sequence[float]) -> bool:
    """Whether all are; what is not a number is not."""
    return all(error <= bound for error, bound in zip(errors, allowed, strict=True))


def kernel_for(members: Sequence[LEIGNN]) -> Kernel | None:
    """The kernel for members of a committee; None where there is none for their preset or device.

    Warns if there should be one but it cannot be made.
    """
    first = members[0]
    alike = {(member.device.type, member.dtype) for member in members}
    if first.config.preset != "local" or len(alike) > 1 or alike.pop() not in {("cpu", dtype) for dtype in _TOLERANCE}:
        return None
    try:
        return Kernel(members)
    except KernelError as error:
        warn_without_kernel(error)
        return None


def warn_without_kernel(reason: KernelError) -> None:
    """Say why potentials are slow."""
    text = f"the compiled kernel is not used: {reason}. Networks are evaluated by torch, several times slower"
    warnings.warn(text, KernelWarning, stacklevel=3)


def _pointers(*tensors: Tensor) -> Iterator[ctypes.c_void_p]:
    return (ctypes.c_void_p(t.data_ptr()) for t in tensors)


def _within(index: Int[Tensor, " n"], end: int) -> bool:
    return not index.numel() or (int(index.min()) >= 0 and int(index.max()) < end)


def weights_mark(parameters: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """Changes whenever parameters are changed in place or moved to another type; changes through `.data` go unnoticed."""
    return tuple((p.data_ptr(), p._version) for p in parameters)


def _part(graph: Graph) -> Graph:
    """The graph, or as many of its atoms around the first one as can be compared in no time."""
    if graph.n_atoms <= _TRIAL_ATOMS:
        return graph
    distances = (graph.positions - graph.positions[0]).square().sum(1)
    return select_atoms(graph, distances.topk(_TRIAL_ATOMS, largest=False).indices.sort().values)


def _trial_structures(species: Sequence[int], core_reach: float) -> Iterator[Atoms]:
    """Rattled atoms of all species in a skewed cell; the same with two of them pressed together."""
    rng = np.random.default_rng(0)
    spacing = 1.6 * max(covalent_radii[z] for z in species)
    n = math.ceil(max(len(species), 8) ** (1 / 3))
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    cell = n * spacing * (np.eye(3) + 0.1 * np.tri(3, k=-1))
    numbers = np.resize(species, len(grid))
    atoms = Atoms(numbers, positions=grid @ cell / n, cell=cell, pbc=True)
    atoms.positions += rng.normal(scale=0.07 * spacing, size=(len(grid), 3))
    yield atoms
    reach = core_reach * (covalent_radii[numbers[0]] + covalent_radii[numbers[1]])
    along = atoms.positions[1] - atoms.positions[0]
    atoms.positions[1] = atoms.positions[0] + 0.8 * reach * along / np.linalg.norm(along)
    yield atoms


# ---- weights in the order in which native/nodes.h reads them


def _weights(model: LEIGNN, lanes: int) -> Iterator[Tensor]:
    """Weights filled up with zeros to whole vectors of features; linear maps as blocks, each [in, out] and its transpose."""
    network = model.network
    assert isinstance(network, LocalNetwork)
    pad = _Padding(model.config.features, lanes)
    n_species, radial = len(model.species), model.config.radial
    yield pad.features(network.embedding)
    by_species = network.first.filter().view(4, radial, n_species, -1).transpose(1, 2).reshape(4, radial * n_species, -1)
    first = pad.features(by_species)
    yield first
    yield functional.pad(first.transpose(1, 2), (0, -(n_species * radial) % lanes))
    for update in network.updates:
        assert isinstance(update, Update)
        yield from pad.mix(update.mix_q)
        yield from pad.mix(update.mix_p)
        yield from pad.perceptron(update.gates)
    for message in network.messages:
        assert isinstance(message, Message)
        yield from pad.perceptron(message.source)
        filters = pad.features(torch.cat(message.filters()))
        yield filters.view(6, radial, -1, lanes).permute(2, 1, 0, 3)
    yield from pad.mix(network.last.mix_q)
    yield from pad.perceptron(network.last.gates)
    yield from pad.first_layer(network.readout)
    yield pad.features(network.readout.weight_2)
    yield network.readout.bias_2.expand(lanes)


@dataclass
class _Padding:
    features_: int
    lanes: int

    @property
    def more(self) -> int:
        return -self.features_ % self.lanes

    def features(self, values: Tensor) -> Tensor:
        return functional.pad(values, (0, self.more))

    def blocks(self, weight: Tensor) -> Tensor:
        """Square blocks (n, in, out)."""
        return functional.pad(weight, (0, self.more, 0, self.more))

    def mix(self, weight: Tensor) -> Iterator[Tensor]:
        yield self.blocks(weight)
        yield self.blocks(weight).transpose(1, 2)

    def first_layer(self, perceptron: Perceptron) -> Iterator[Tensor]:
        width = self.features_
        blocks = self.blocks(perceptron.weight_1.view(width, -1, width).permute(1, 2, 0))
        yield blocks
        yield blocks.transpose(1, 2)
        yield self.features(perceptron.bias_1)

    def perceptron(self, perceptron: Perceptron) -> Iterator[Tensor]:
        yield from self.first_layer(perceptron)
        blocks = self.blocks(perceptron.weight_2.view(-1, self.features_, self.features_).transpose(1, 2))
        yield blocks
        yield blocks.transpose(1, 2)
        yield self.features(perceptron.bias_2.view(-1, self.features_))
