"""LEIGNN: the potential. A network's per-atom energies, isolated-atom energies and short-range repulsion in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from al_leignn.config import ModelConfig
from al_leignn.errors import ConfigError
from al_leignn.model.graph import Edges, Graph
from al_leignn.model.local import LocalNetwork
from al_leignn.model.paper import PaperNetwork
from al_leignn.model.repulsion import REACH, core_radii, level_off, repulsion
from al_leignn.shapes import Float


@dataclass
class Output:
    """What the potential says of a graph. Energies are float64, forces and stress have the dtype of the parameters."""

    energy: Float[Tensor, " structures"]
    """eV."""
    node_energy: Float[Tensor, " atoms"]
    """eV; sums to `energy`."""
    forces: Float[Tensor, "atoms 3"] | None
    """eV/Å."""
    stress: Float[Tensor, "structures 3 3"] | None
    """(1/V) dE/dstrain, eV/Å^3, positive under tension; zero for structures without a 3-D cell."""


class LEIGNN(nn.Module):
    """One potential.

    Parameters
    ----------
    species
        Atomic numbers it is for; any other element is refused.
    e0s
        Isolated-atom energy of each species, eV.
    energy_scale
        The network's raw per-atom output is multiplied by it, eV (a typical force in eV/Å is a good choice).
    mean_neighbours
        Typical number of neighbours within the cutoff; sums over neighbours are divided by its square root.
    seed
        Of the initial weights.
    core_reach
        Pairs closer than this share of the sum of their covalent radii are repelled, whatever the network says; below all
        that it was trained on.
    """

    def __init__(
        self,
        config: ModelConfig,
        species: Sequence[int],
        *,
        e0s: Mapping[int, float],
        energy_scale: float = 1.0,
        mean_neighbours: float,
        seed: int,
        core_reach: float = REACH,
    ) -> None:
        super().__init__()
        missing = [z for z in species if z not in e0s]
        if missing:
            raise ConfigError(f"no isolated-atom energy for atomic numbers {missing}")
        if not mean_neighbours > 0:
            raise ConfigError(f"mean_neighbours must be positive, not {mean_neighbours}")
        if not 0 < core_reach <= REACH:
            raise ConfigError(f"core_reach must lie between 0 and {REACH}, not at {core_reach}")
        self.config = config
        self.species = tuple(int(z) for z in species)
        self.e0s = {z: float(e0s[z]) for z in self.species}
        self.energy_scale = float(energy_scale)
        self.mean_neighbours = float(mean_neighbours)
        self.core_reach = float(core_reach)
        generator = torch.Generator().manual_seed(seed)
        self.network: LocalNetwork | PaperNetwork
        if config.preset == "local":
            self.network = LocalNetwork(config, len(self.species), self.mean_neighbours, generator)
        else:
            self.network = PaperNetwork(config, len(self.species), generator)

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.config.cutoff

    @property
    def conservative(self) -> bool:
        """Whether forces are the gradient of the energy; if not, the model may drive MD with a thermostat only."""
        return not self.config.direct_forces

    @property
    def size_consistent(self) -> bool:
        """Whether the energy of far fragments is the sum of theirs (false with virtual nodes)."""
        return self.config.preset == "local"

    @property
    def dtype(self) -> torch.dtype:
        return self.network.embedding.dtype

    @property
    def device(self) -> torch.device:
        return self.network.embedding.device

    def edges(self, graph: Graph, *, differentiate: bool = True) -> Edges:
        """Edge vectors as the leaf that energies are differentiated by, and the basis on them."""
        neighbours = graph.neighbours()
        # Differences are taken in the precision of the graph: positions may be large, edges are not.
        vectors = graph.vectors(neighbours).detach().to(self.dtype).requires_grad_(differentiate)
        core = core_radii(graph, self.species, self.core_reach, neighbours, like=vectors)
        with torch.set_grad_enabled(differentiate):
            distances = vectors.square().sum(2).sqrt()
            if not bool((distances < core).any()):
                return Edges(vectors, neighbours, None, self.network.basis(vectors, distances, distances))
            return Edges(vectors, neighbours, core, self.network.basis(vectors, distances, level_off(distances, core)))

    def forward(
        self,
        graph: Graph,
        *,
        forces: bool = True,
        stress: bool = False,
        create_graph: bool = False,
        edges: Edges | None = None,
    ) -> Output:
        """Energies, and forces and stress from one backward pass through the edge vectors.

        Parameters
        ----------
        create_graph
            Keep what the gradient of a loss on forces or stress needs.
        edges
            From `self.edges(graph)`, to share it between members.

        Notes
        -----
        With g_ij = dE/d r_ij, the force on atom i is sum_j (g_ij - g_ji) and the stress is sum_ij r_ij ⊗ g_ij / V, which
        is the derivative of E by a homogeneous strain of atoms and cell. In training, call
        `loss.backward(inputs=list(model.parameters()))`: it leaves out the second derivatives by positions.
        """
        differentiate = stress or (forces and self.conservative)
        keep = create_graph or edges is not None
        edges = edges or self.edges(graph, differentiate=differentiate)
        with torch.set_grad_enabled(differentiate or torch.is_grad_enabled()):
            raw, head = self.network(graph, edges.neighbours, edges.basis)
            gradient = torch.zeros_like(edges.vectors)
            if differentiate:
                (gradient,) = torch.autograd.grad(
                    raw.sum(), edges.vectors, create_graph=create_graph, retain_graph=keep, materialize_grads=True
                )
            if differentiate and not create_graph:
                raw, head = raw.detach(), None if head is None else head.detach()
            e0 = torch.tensor([self.e0s[z] for z in self.species], dtype=torch.float64, device=raw.device)
            node_energy = raw.double() * self.energy_scale + e0[graph.species]
            gradient = gradient * self.energy_scale
            push = repulsion(graph, self.species, edges)
            if push is not None:
                node_energy = node_energy + push.node_energy
                gradient = gradient + push.gradient
            energy = node_energy.new_zeros(graph.n_structures).index_add(0, graph.structure, node_energy)
            pull: Tensor | None = None
            if forces and head is None:
                pull = _forces(edges, gradient)
            elif forces and head is not None:
                pull = head * self.energy_scale
                pull = pull if push is None else pull + _forces(edges, push.gradient)
            return Output(energy, node_energy, pull, _stress(graph, edges, gradient) if stress else None)


def _forces(edges: Edges, gradient: Float[Tensor, "atoms width 3"]) -> Float[Tensor, "atoms 3"]:
    return gradient.sum(1).index_add(0, edges.neighbours.reshape(-1), gradient.reshape(-1, 3), alpha=-1)


def _stress(graph: Graph, edges: Edges, gradient: Float[Tensor, "atoms width 3"]) -> Float[Tensor, "structures 3 3"]:
    virial = edges.vectors.detach().transpose(1, 2) @ gradient
    total = virial.new_zeros(graph.n_structures, 3, 3).index_add(0, graph.structure, virial)
    stress = (total + total.transpose(1, 2)) / (2 * graph.volume().to(total.dtype).view(-1, 1, 1))
    return stress * graph.periodic.view(-1, 1, 1)
