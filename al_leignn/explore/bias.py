"""A push towards what the committee does not know: an energy that falls as its members disagree.

Kulichenko et al., Nat. Comput. Sci. 3, 230 (2023): E_bias = A [exp(-s^2 / (N B^2)) - 1], with the variance s^2 over members of
the energy of N atoms. Its gradient needs only the members' energies and forces. What is ours: energies count from those of
the walker's first frame, so that constants by which members differ do not matter; on no walker is the bias force larger than
the force of the potential; and it rests while a walker is hotter than 1.5 times its target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from al_leignn.explore.integrators import State
from al_leignn.shapes import Float

_TOO_HOT = 1.5


@dataclass(frozen=True)
class Bias:
    """Strength and width of the bias.

    Attributes
    ----------
    strength
        A, eV: a walker gains at most this much.
    width
        B, eV: how fast the bias saturates.
    origin
        Energies of the members for the first frames; None before there is one.
    """

    strength: float
    width: float
    origin: Float[Tensor, "members walkers"] | None = None

    def starting(self, energy: Float[Tensor, "members walkers"]) -> "Bias":
        """The same with the energies that others are counted from."""
        return replace(self, origin=energy.double())

    def select(self, keep: Sequence[int]) -> "Bias":
        """That of some of the walkers."""
        return self if self.origin is None else replace(self, origin=self.origin[:, list(keep)])

    def push(
        self, energy: Float[Tensor, "members walkers"], forces: Float[Tensor, "members atoms 3"], state: State
    ) -> tuple[Float[Tensor, " walkers"], Float[Tensor, "atoms 3"]]:
        """Bias energy (eV) of each walker and bias force (eV/Å) on each atom, for what all members say.

        `state` tells temperatures and which atom belongs to whom; it stays as it is.
        """
        if self.origin is None:
            return torch.zeros_like(state.energy), torch.zeros_like(state.positions)
        counts = torch.bincount(state.walker, minlength=len(state.counts)).double()
        relative = energy.double() - self.origin
        apart = relative - relative.mean(0)
        scale = counts * self.width**2
        decay = torch.exp(-apart.square().mean(0) / scale)
        # The force is A exp(..) / (N B^2) d(s^2)/dx, and d(s^2)/dx = -2/K sum_k (E_k - mean) F_k.
        weights = (-2.0 * self.strength * decay / scale * apart / len(energy))[:, state.walker]
        push = (weights.unsqueeze(2) * forces.double()).sum(0)
        mean = forces.double().mean(0)
        bounds = _norm(mean, state) / _norm(push, state).clamp(min=1e-300)
        awake = (state.temperature() <= _TOO_HOT * state.targets).double()
        factor = bounds.clamp(max=1.0) * awake
        return self.strength * (decay - 1.0), factor[state.walker].unsqueeze(1) * push


def _norm(forces: Float[Tensor, "atoms 3"], state: State) -> Float[Tensor, " walkers"]:
    """Length of each walker's force vector in all its coordinates."""
    return state.per_walker(forces.square().sum(1)).sqrt()
