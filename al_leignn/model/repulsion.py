"""Atoms pressed together: a repulsion that is always there, and distances below which the network learns nothing new.

Both act on pairs closer than `core_radii`, well inside any bond. There the Ziegler-Biersack-Littmark repulsion sets in,
and the distance that the network sees levels off, so that no extrapolation of the network can outweigh the repulsion.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from ase.data import covalent_radii
from torch import Tensor

from al_leignn.model.graph import Edges, Graph
from al_leignn.model.layers import envelope
from al_leignn.shapes import Float

REACH = 0.75
"""Core radii are this share of the sum of the covalent radii, or less where a potential was trained on shorter distances.

No bond is shorter at rest (N₂: 0.77), and where one is compressed by a tenth the core adds less than 0.1 eV."""

_COULOMB = 14.399645
"""e²/(4 pi epsilon_0), eV Å."""

_SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
"""Universal screening function: amplitudes and decay constants."""


class Repulsion(NamedTuple):
    node_energy: Float[Tensor, " atoms"]
    """eV."""
    gradient: Float[Tensor, "atoms width 3"]
    """Derivative of the energy by each edge vector, eV/Å."""


def core_radii(
    graph: Graph, numbers: Sequence[int], reach: float, neighbours: Tensor, like: Float[Tensor, "*any"]
) -> Float[Tensor, "atoms width"]:
    """`reach` times (R_i + R_j) of each edge from covalent radii, Å."""
    radii = reach * like.new_tensor([covalent_radii[z] for z in numbers])[graph.species]
    return radii.unsqueeze(1) + radii[neighbours]


def level_off(r: Float[Tensor, "atoms width"], core: Float[Tensor, "atoms width"]) -> Float[Tensor, "atoms width"]:
    """Distances that stay above half the core radius and equal r outside; two continuous derivatives.

    With s = r/core, s < 1 becomes 1/2 + s^3 - s^4/2.
    """
    s = (r / core).clamp(max=1.0)
    return torch.where(r < core, core * (0.5 + s * s * s * (1 - 0.5 * s)), r)


def repulsion(graph: Graph, numbers: Sequence[int], edges: Edges) -> Repulsion | None:
    """Ziegler-Biersack-Littmark repulsion of the pairs that are too close; None where there is none.

    E_ij = Z_i Z_j e²/(4 pi eps0 r) S(r/a) u(r/r_core) with a = 0.46850 Å / (Z_i^0.23 + Z_j^0.23), the universal screening
    function S (Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Solids, 1985) and the network's envelope u.
    """
    if edges.core is None:
        return None
    vectors = edges.vectors.detach()
    centre, column = (vectors.square().sum(2) < edges.core.square()).nonzero(as_tuple=True)
    charge = vectors.new_tensor(numbers)[graph.species]
    z_i, z_j = charge[centre], charge[edges.neighbours[centre, column]]
    with torch.enable_grad():
        pairs = vectors[centre, column].requires_grad_()
        r = pairs.square().sum(1).sqrt()
        x = r * (z_i**0.23 + z_j**0.23) / 0.46850
        screening = sum((a * torch.exp(-b * x) for a, b in _SCREENING), start=torch.zeros_like(x))
        # Every pair comes twice, once per centre, which takes half of it.
        half = 0.5 * _COULOMB * z_i * z_j / r * screening * envelope(r / edges.core[centre, column])
        (slope,) = torch.autograd.grad(half.sum(), pairs)
    node_energy = half.new_zeros(graph.n_atoms).index_add(0, centre, half.detach())
    return Repulsion(node_energy, torch.zeros_like(vectors).index_put((centre, column), slope))
