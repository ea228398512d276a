"""Peers as ASE calculators with random (CHGNet: shipped) weights for silicon, and the environment they are installed in.

Runs in that environment, so it imports nothing of al-leignn; every peer is imported when it is built.
"""

import os
import subprocess
import sys
import tempfile
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CUTOFF = 5.0
"""Å. CHGNet has its own: 6 Å, and 3 Å for angles."""

PACKAGES = ("ase", "calorine==4.1", "mace-torch==0.3.16", "chgnet==0.4.2")

SCHNETPACK = "schnetpack==2.1.1"
"""The last for Python 3.11. It asks for an old sympy, which would bring an old torch: installed without dependencies."""

SCHNETPACK_NEEDS = (
    *("hydra-core", "hydra-colorlog", "fasteners", "dirsync"),
    *("torch-ema", "matscipy", "tensorboardX", "pytorch-lightning"),
)


def nep() -> Any:
    """NEP4 for one element: n_max 10 10, basis size 8 8, l_max 4 2 1, 50 neurons."""
    from calorine.calculators import CPUNEP

    n, basis, neurons = 11, 9, 50
    descriptors = n + n * (4 + 1 + 1)
    network = neurons * (descriptors + 2) + 1
    numbers = np.random.default_rng(0).normal(scale=0.1, size=network + 2 * n * basis)
    header = f"nep4 1 Si\ncutoff {CUTOFF:g} {CUTOFF:g} 60 60\nn_max 10 10\nbasis_size 8 8\nl_max 4 2 1\nANN {neurons} 0\n"
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "nep.txt"
    path.write_text(header + "\n".join(f"{x:.7e}" for x in [*numbers, *np.full(descriptors, 0.01)]) + "\n")
    calculator = CPUNEP(str(path))
    calculator.folder = folder  # the file is read at the first step
    return calculator


def mace(hidden: str) -> Any:
    """MACE: 2 layers, max_ell 3, correlation 3."""
    import torch
    from e3nn import o3
    from mace import modules
    from mace.calculators import MACECalculator

    torch.set_default_dtype(torch.float32)
    blocks = modules.interaction_classes
    model = modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=blocks["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=blocks["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=1,
        hidden_irreps=o3.Irreps(hidden),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.array([0.0]),
        avg_num_neighbors=28.0,
        atomic_numbers=[14],
        correlation=3,
        radial_type="bessel",
        radial_MLP=[64, 64, 64],
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    return MACECalculator(models=[model], device="cpu", default_dtype="float32")


def painn() -> Any:
    """PaiNN: F = 64, 3 layers, 20 Gaussian radial functions."""
    import torch
    from torch.utils.data import dataloader

    # schnetpack imports this type variable from torch, which no longer has it.
    dataloader.T_co = typing.TypeVar("T_co", covariant=True)  # type: ignore[attr-defined]
    from schnetpack import atomistic, nn, representation, transform
    from schnetpack.interfaces import SpkCalculator
    from schnetpack.model import NeuralNetworkPotential

    network = representation.PaiNN(
        n_atom_basis=64, n_interactions=3, radial_basis=nn.GaussianRBF(20, CUTOFF), cutoff_fn=nn.CosineCutoff(CUTOFF)
    )
    model = NeuralNetworkPotential(
        representation=network,
        input_modules=[atomistic.PairwiseDistances()],
        output_modules=[atomistic.Atomwise(n_in=64, output_key="energy"), atomistic.Forces()],
    )
    with tempfile.NamedTemporaryFile() as file:
        torch.save(model, file.name)
        return SpkCalculator(file.name, transform.MatScipyNeighborList(cutoff=CUTOFF), energy_unit="eV", position_unit="Ang")


def chgnet() -> Any:
    """CHGNet with its shipped weights."""
    from chgnet.model.dynamics import CHGNetCalculator

    return CHGNetCalculator(use_device="cpu")


PEERS: dict[str, Callable[[], Any]] = {
    "NEP4": nep,
    "PaiNN": painn,
    "MACE 64x0e": lambda: mace("64x0e"),
    "CHGNet": chgnet,
    "MACE 64x0e+64x1o": lambda: mace("64x0e + 64x1o"),
}


MOST_ATOMS = {"CHGNet": 1000}
"""Peers that are not asked for larger systems: CHGNet takes 5 MB of memory per atom."""


def peers_python() -> str:
    """The interpreter of an environment with the peers, made at first use in the user's cache folder."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "al-leignn" / "peers"
    python = str(folder / "bin" / "python")
    if not (folder / "complete").exists():
        import torch

        version = torch.__version__.split("+")[0]
        print(f"installing peers into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        # torch first and alone: left to the resolver, a build with gigabytes of GPU libraries may be fetched.
        for wanted in ([f"torch=={version}"], [f"torch=={version}", *PACKAGES, *SCHNETPACK_NEEDS], ["--no-deps", SCHNETPACK]):
            subprocess.run([*pip, *wanted], check=True)
        (folder / "complete").touch()
    return python
