"""Several members seen as one: the graph, the edges and the basis are computed once for all of them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from al_leignn.core import CommitteePrediction
from al_leignn.errors import CheckpointError, ConfigError
from al_leignn.model.build import KernelError
from al_leignn.model.checkpoint import load_members, save_members
from al_leignn.model.device import checked_device, checked_dtype
from al_leignn.model.graph import Graph, build_graph, collate
from al_leignn.model.kernel import Kernel, kernel_for, warn_without_kernel, weights_mark
from al_leignn.model.leignn import LEIGNN, Output
from al_leignn.shapes import Float
from al_leignn.units import voigt

if TYPE_CHECKING:
    from al_leignn.model.calculator import LeignnCalculator

Engine = Literal["auto", "eager"]


@dataclass(frozen=True)
class CommitteeOutput:
    """Outputs of several members on one graph, stacked in their order. Energies are float64."""

    energy: Float[Tensor, "members structures"]
    node_energy: Float[Tensor, "members atoms"]
    forces: Float[Tensor, "members atoms 3"]
    stress: Float[Tensor, "members structures 3 3"] | None


class Committee:
    """Members that share species and network settings and differ in their weights.

    Parameters
    ----------
    engine
        "auto": evaluate with the compiled kernel (`kernel.py`) where there is one for the members and it passes its check
        against them; "eager": always evaluate the network itself.
    """

    def __init__(self, members: Sequence[LEIGNN], *, engine: Engine = "auto") -> None:
        if not members:
            raise ConfigError("a committee needs at least one member")
        first = members[0]
        for member in members[1:]:
            if member.config != first.config or member.species != first.species:
                raise ConfigError(
                    "members of a committee differ in network or species",
                    fix="take members of one training, with one [model] section",
                )
            if member.core_reach != first.core_reach:
                raise ConfigError(
                    "members of a committee repel atoms from different distances on", fix="take members of one training"
                )
            if (member.device, member.dtype) != (first.device, first.dtype):
                raise ConfigError(
                    "members of a committee differ in device or precision", fix="load them with one `device` and one `dtype`"
                )
        self.members = tuple(members)
        self.species = first.species
        self.cutoff = first.cutoff
        self.conservative = first.conservative
        self.size_consistent = first.size_consistent
        self.engine: Engine = engine
        self._parameters = [parameter for member in members for parameter in member.parameters()]
        self._kernel: Kernel | None = None
        self._kernel_mark: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.members)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.members[0].device

    @property
    def compiled(self) -> bool:
        """Whether the compiled kernel is in use, for which edges beyond the cutoff cost next to nothing."""
        return self._current_kernel() is not None

    @classmethod
    def load(
        cls,
        path: Path | str | Sequence[Path | str],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        *,
        engine: Engine = "auto",
    ) -> "Committee":
        """Read a committee from its file, or from the files of its members.

        Raises
        ------
        CheckpointError
            See `checkpoint.load_member`; also members that do not belong together.
        ConfigError
            A device that is not there, or a type other than float32 and float64.
        """
        paths = [path] if isinstance(path, Path | str) else list(path)
        members = [member for one in paths for member in load_members(Path(one), device, dtype)]
        try:
            return cls(members, engine=engine)
        except ConfigError as error:
            raise CheckpointError(error.what, where=", ".join(str(one) for one in paths), fix=error.fix) from None

    def save(self, path: Path | str) -> None:
        """Write all members into one file."""
        save_members(self.members, Path(path))

    def calculator(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None, **options: Any
    ) -> "LeignnCalculator":
        """ASE calculator of this committee; `options` are those of `LeignnCalculator`.

        With `device` or `dtype`, the calculator has a copy of the members there; this committee stays as it is.

        Raises
        ------
        ConfigError
            An impossible option, a device that is not there, or a type other than float32 and float64.
        """
        from al_leignn.model.calculator import LeignnCalculator

        committee = self
        if device is not None or dtype is not None:
            device, dtype = checked_device(device or self.device), checked_dtype(dtype)
            members = [copy.deepcopy(member).to(device, dtype) for member in self.members]
            committee = Committee(members, engine=self.engine)
        return LeignnCalculator(committee, **options)

    def evaluate(self, graph: Graph, members: Sequence[int] | None = None, *, stress: bool = False) -> CommitteeOutput:
        """Stacked outputs of the chosen members (all by default), without gradients."""
        chosen = range(len(self)) if members is None else members
        graph = graph.to(self.device)
        outputs = self._evaluate_fast(graph, chosen, stress=stress)
        if outputs is None:
            outputs = self._evaluate_eagerly(graph, [self.members[k] for k in chosen], stress=stress)
        return CommitteeOutput(
            energy=torch.stack([o.energy for o in outputs]),
            node_energy=torch.stack([o.node_energy for o in outputs]),
            forces=_stacked([o.forces for o in outputs]),
            stress=_stacked([o.stress for o in outputs]) if stress else None,
        )

    def _evaluate_fast(self, graph: Graph, chosen: Sequence[int], *, stress: bool) -> list[Output] | None:
        """What the kernel says; None where there is none, or none that can be trusted with these members and graphs."""
        kernel = self._current_kernel()
        if kernel is None:
            return None
        try:
            return kernel.evaluate(graph, chosen, stress=stress)
        except KernelError as error:
            self._kernel = None  # until weights change
            warn_without_kernel(error)
            return None

    def _evaluate_eagerly(self, graph: Graph, members: Sequence[LEIGNN], *, stress: bool) -> list[Output]:
        with torch.no_grad():  # members turn gradients on where they need them
            edges = members[0].edges(graph) if len(members) > 1 else None
            return [member(graph, stress=stress, edges=edges) for member in members]

    def _current_kernel(self) -> Kernel | None:
        """The kernel with the members' weights of now; None where there is none."""
        if self.engine == "auto":
            mark = weights_mark(self._parameters)
            if mark != self._kernel_mark:
                self._kernel, self._kernel_mark = kernel_for(self.members), mark
        return self._kernel

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kernel": None, "_kernel_mark": ()}  # made again where it is needed

    def predict(self, frames: Sequence[Atoms], *, batch_atoms: int = 512) -> list[CommitteePrediction]:
        """Predictions of all members, in the order of `frames`.

        Parameters
        ----------
        batch_atoms
            Frames are evaluated together up to about this many atoms; results do not depend on it.

        Raises
        ------
        StructureError
            A frame cannot be simulated or has an element the committee does not know.
        """
        predictions: list[CommitteePrediction] = []
        batch: list[Graph] = []
        for frame in frames:
            graph = build_graph(frame, self.cutoff, self.species)
            if batch and sum(g.n_atoms for g in batch) + graph.n_atoms > batch_atoms:
                predictions += self.predict_graphs(batch)
                batch = []
            batch.append(graph)
        return predictions + (self.predict_graphs(batch) if batch else [])

    def predict_graphs(self, graphs: Sequence[Graph], members: Sequence[int] | None = None) -> list[CommitteePrediction]:
        """Predictions of the chosen members (all by default) for graphs of one structure each, evaluated together."""
        periodic = [bool(g.periodic[0]) for g in graphs]
        output = self.evaluate(collate(graphs), members, stress=any(periodic))
        energy, node_energy, forces = (_float64(t) for t in (output.energy, output.node_energy, output.forces))
        stress = None if output.stress is None else voigt(_float64(output.stress))
        ends = np.cumsum([g.n_atoms for g in graphs])
        predictions = []
        for k, (graph, end) in enumerate(zip(graphs, ends, strict=True)):
            own = slice(int(end) - graph.n_atoms, int(end))
            predictions.append(
                CommitteePrediction(
                    energy=energy[:, k],
                    forces=forces[:, own],
                    stress=stress[:, k] if stress is not None and periodic[k] else None,
                    node_energy=node_energy[:, own],
                )
            )
        return predictions


def _stacked(values: Sequence[Tensor | None]) -> Tensor:
    return torch.stack([value for value in values if value is not None])


def _float64(values: Tensor) -> Float[np.ndarray, "*shape"]:
    array: Float[np.ndarray, "*shape"] = values.detach().to("cpu", torch.float64).numpy()
    return array
