"""How much memory a step of a fit takes, and whether there is so much: a machine that runs out of it kills without a word."""

from collections.abc import Sequence

import psutil  # type: ignore[import-untyped]

from al_leignn.config import ModelConfig
from al_leignn.errors import RunError
from al_leignn.train.batches import Example

FLOATS = {"local": (2300, 20), "paper": (0, 55)}
"""Numbers kept for the gradient, per feature, layer and atom, and per feature, layer and edge. Measured on silicon (28 to 46
neighbours, 32 and 64 features, 2 and 3 layers), up to 20 % on the safe side."""


def gradient_bytes(model: ModelConfig, atoms: int, edges: int, float_bytes: int) -> float:
    """Memory for the gradient of the loss of a frame, roughly."""
    per_atom, per_edge = FLOATS[model.preset]
    return float_bytes * model.features * model.layers * (per_atom * atoms + per_edge * edges)


def require_memory(model: ModelConfig, examples: Sequence[Example], float_bytes: int) -> None:
    """Refuse a fit on this machine's processor whose largest frame needs more memory than is free.

    Raises
    ------
    RunError
        It names the size of the frame, what it needs and what there is.
    """
    needed, largest = max(
        ((gradient_bytes(model, e.n_atoms, len(e.graph.centre), float_bytes), e) for e in examples), key=lambda pair: pair[0]
    )
    free = psutil.virtual_memory().available
    if needed > free:
        raise RunError(
            f"a frame of {largest.n_atoms} atoms takes about {needed / 1e9:.1f} GB to train on, and {free / 1e9:.1f} GB are free",
            fix="train with fewer workers or on smaller cells (select.cut_out makes some), or lower model.features",
        )
