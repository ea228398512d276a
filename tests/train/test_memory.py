"""What a fit says of memory, held against what the system says."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import torch
from ase.build import bulk

from al_leignn.config import ModelConfig
from al_leignn.core import Frame, LabelledFrame, Labels, Origin
from al_leignn.errors import RunError
from al_leignn.train.batches import Example, make_examples
from al_leignn.train.memory import gradient_bytes, require_memory

MEASURE = """
import json, sys
from pathlib import Path
import torch
from ase.build import bulk
from al_leignn.config import ModelConfig
from al_leignn.model.graph import build_graph, collate
from al_leignn.model.leignn import LEIGNN

def peak():
    # Not getrusage, which counts the memory of whoever started this process, too.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

torch.set_num_threads(1)
atoms = bulk("Si", cubic=True) * (4, 4, 4)
network = LEIGNN(ModelConfig(preset=sys.argv[1]), (14,), e0s={14: 0.0}, mean_neighbours=28.0, seed=0)
graph = collate([build_graph(atoms, 5.0, (14,))])
before = peak()
out = network(graph, forces=True, stress=True, create_graph=True)
(out.forces.square().sum() + out.energy.sum() + out.stress.sum()).backward(inputs=list(network.parameters()))
print(json.dumps([len(atoms), len(graph.centre), peak() - before]))
"""


@pytest.mark.parametrize("preset", ["local", "paper"])
def test_foretold_is_what_a_gradient_takes(preset: str) -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE, preset], capture_output=True, text=True, check=True, timeout=120)
    atoms, edges, taken = json.loads(done.stdout)
    assert gradient_bytes(ModelConfig.model_validate({"preset": preset}), atoms, edges, 4) == pytest.approx(taken, rel=0.4)


def _example(repeat: int) -> Example:
    atoms = bulk("Si", cubic=True) * (repeat, 1, 1)
    labels = Labels(0.0, np.zeros((len(atoms), 3)), None)
    labelled = LabelledFrame(Frame.of(atoms, Origin("given")), labels, "level")
    return make_examples([labelled], 5.0, (14,), torch.float32, torch.device("cpu"))[0]


def test_a_frame_too_large_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = ModelConfig(), [_example(1), _example(3)]
    require_memory(model, examples, 4)
    enough = gradient_bytes(model, 8, len(examples[0].graph.centre), 4)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * enough))
    require_memory(model, examples[:1], 4)
    with pytest.raises(RunError, match="24 atoms"):
        require_memory(model, examples, 4)
