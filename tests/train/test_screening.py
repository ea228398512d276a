from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from al_leignn.core import Frame, LabelledFrame, Labels, Origin
from al_leignn.errors import DataError
from al_leignn.train.screening import set_aside


def _frame(i: int, *, energy: float = -1.0, stress: np.ndarray | None = None, level: str = "pbe") -> LabelledFrame:
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.7 + 0.01 * i]])
    return LabelledFrame(Frame.of(atoms, Origin("data")), Labels(energy, np.full((2, 3), 0.1), stress), level)


def _with_forces(item: LabelledFrame, forces: np.ndarray) -> LabelledFrame:
    return replace(item, labels=replace(item.labels, forces=forces))


BAD = {
    "energy is not a finite": _frame(10, energy=float("nan")),
    "force is not a finite": _with_forces(_frame(11), np.full((2, 3), np.inf)),
    "stress is not a finite": _frame(12, stress=np.full(6, np.nan)),
    "force beyond 100": _with_forces(_frame(13), np.full((2, 3), 1e3)),
    "stress beyond 10": _frame(14, stress=np.full(6, 25.0)),
    "shape of the forces": _with_forces(_frame(15), np.zeros((3, 3))),
    "level of theory": _frame(17, level="scan"),
    "the same structure": _frame(0),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_frame_is_named_with_its_reason(reason: str) -> None:
    fine = [_frame(i) for i in range(3)]
    good, aside = set_aside([*fine, BAD[reason]])
    assert good == fine
    assert [uid for uid, _ in aside] == [BAD[reason].frame.uid]
    assert reason in aside[0][1]


def test_every_frame_ends_in_exactly_one_list() -> None:
    frames = [_frame(i) for i in range(3)] + list(BAD.values())
    good, aside = set_aside(frames)
    assert len(good) + len(aside) == len(frames)


def test_nothing_left_is_an_error_that_counts_the_reasons() -> None:
    with pytest.raises(DataError, match="none of the 2 labelled frames") as caught:
        set_aside([BAD["force beyond 100"], BAD["energy is not a finite"]])
    assert "1 x force beyond 100 eV/Å" in str(caught.value)
    with pytest.raises(DataError, match="no labelled frames"):
        set_aside([])
