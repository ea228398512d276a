"""The one way to a label: store first, screened before, rescued, checked after, paid once."""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from al_leignn.config import AseConfig, ExternalConfig, GpawConfig
from al_leignn.core import Allowance, DoubtfulLabels, Frame, LabelFailure, Labels, LabelVerdict, Origin, Reason
from al_leignn.label.base import LABEL_DECIMALS, Labeller, label_frame, make_labeller
from al_leignn.label.checks import Expectation
from al_leignn.labelstore import LabelStore
from tests.waiting import wait_for

REPOSITORY = Path(__file__).parents[2]

GOOD = Labels(-1.0, np.zeros((4, 3)), np.zeros(6))


class Scripted:
    """A labeller that answers from a list and counts its calls."""

    level = "c" * 64

    def __init__(self, *answers: Labels | str, rungs: int = 1) -> None:
        self.rungs = rungs
        self.asked: list[int] = []
        self.limits: list[float] = []
        self._answers = list(answers)

    def describe(self) -> dict[str, str]:
        return {"labeller": "scripted"}

    def check(self, species: Iterable[int]) -> list[str]:
        return []

    def within(self, cpu_s: float) -> "Scripted":
        self.limits.append(cpu_s)
        return self

    def label(self, frame: Frame, scratch: Path, rung: int = 0, *, tight: bool = False) -> Labels | LabelFailure:
        assert scratch.is_dir()
        assert not list(scratch.iterdir())
        (scratch / "leftover").write_text("x")
        self.asked.append(-1 if tight else rung)
        answer = self._answers.pop(0)
        return answer if isinstance(answer, Labels) else LabelFailure(frame.uid, Reason(answer))


def frame_of(seed: int = 1) -> Frame:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return Frame.of(atoms, Origin("rattle"))


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels")


def test_a_label_is_paid_once(store: LabelStore, tmp_path: Path) -> None:
    labeller: Labeller = Scripted(GOOD)
    first = label_frame(labeller, frame_of(), store, tmp_path)
    again = label_frame(labeller, frame_of(), store, tmp_path)  # a second call would find the script empty
    assert (first.from_store, again.from_store) == (False, True)
    assert isinstance(first.result, Labels)
    assert isinstance(again.result, Labels)
    assert first.result.energy == again.result.energy
    assert store.descriptions() == [{"labeller": "scripted", "level": "c" * 64}]


def test_a_failure_is_not_stored_and_may_be_tried_again(store: LabelStore, tmp_path: Path) -> None:
    labeller = Scripted("crashed", GOOD)
    assert isinstance(label_frame(labeller, frame_of(), store, tmp_path).result, LabelFailure)
    assert len(store) == 0
    assert isinstance(label_frame(labeller, frame_of(), store, tmp_path).result, Labels)
    assert len(store) == 1


def test_hard_scf_climbs_the_ladder_and_tells_the_rung(store: LabelStore, tmp_path: Path) -> None:
    labeller = Scripted("unconverged", "unconverged", GOOD, rungs=3)
    outcome = label_frame(labeller, frame_of(), store, tmp_path)
    assert isinstance(outcome.result, Labels)
    assert (labeller.asked, outcome.rung) == ([0, 1, 2], 2)


def test_the_ladder_ends(store: LabelStore, tmp_path: Path) -> None:
    labeller = Scripted("unconverged", "unconverged", rungs=2)
    outcome = label_frame(labeller, frame_of(), store, tmp_path)
    assert isinstance(outcome.result, LabelFailure)
    assert (outcome.result.reason, labeller.asked) == ("unconverged", [0, 1])


@pytest.mark.parametrize("reason", ["crashed", "timeout", "no output", "bad output"])
def test_only_unconverged_is_rescued(store: LabelStore, tmp_path: Path, reason: str) -> None:
    labeller = Scripted(reason, rungs=3)
    outcome = label_frame(labeller, frame_of(), store, tmp_path)
    assert isinstance(outcome.result, LabelFailure)
    assert (outcome.result.reason, labeller.asked) == (reason, [0])


def test_a_labeller_that_somebody_killed_is_started_once_more(store: LabelStore, tmp_path: Path) -> None:
    labeller = Scripted("killed", GOOD)
    outcome = label_frame(labeller, frame_of(), store, tmp_path)
    assert isinstance(outcome.result, Labels)
    assert outcome.computed == 2
    unlucky = label_frame(Scripted("killed", "killed"), frame_of(2), store, tmp_path)
    assert isinstance(unlucky.result, LabelFailure)
    assert unlucky.result.reason is Reason.KILLED


def test_overlapping_atoms_are_never_paid_for(store: LabelStore, tmp_path: Path) -> None:
    labeller = Scripted()
    frame = Frame.of(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.3]]), Origin("md"))
    outcome = label_frame(labeller, frame, store, tmp_path)
    assert isinstance(outcome.result, LabelFailure)
    assert (outcome.result.reason, labeller.asked) == ("geometry", [])


def test_a_wrong_label_never_enters_the_store(store: LabelStore, tmp_path: Path) -> None:
    wrong = dataclasses.replace(GOOD, forces=np.full((4, 3), np.nan))
    outcome = label_frame(Scripted(wrong), frame_of(), store, tmp_path)
    assert isinstance(outcome.result, LabelFailure)
    assert outcome.result.reason == "not finite"
    assert len(store) == 0


def test_what_is_returned_is_what_is_stored(store: LabelStore, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    forces = rng.normal(size=(4, 3))
    labels = Labels(float(rng.normal()), forces - forces.mean(axis=0), rng.normal(size=6))
    result = label_frame(Scripted(labels), frame_of(), store, tmp_path).result
    (kept,) = (entry.labelled for entry in store)
    assert isinstance(result, Labels)
    assert kept.labels.energy == result.energy == round(labels.energy, LABEL_DECIMALS)
    np.testing.assert_array_equal(kept.labels.forces, result.forces)


# --- several processes --------------------------------------------------------------------------------------

ASK = """
import json, sys
from pathlib import Path
from tests.label.test_base import ExternalConfig, LabelStore, frame_of, label_frame, make_labeller
folder = Path(sys.argv[1])
code = folder / "code.sh"
config = ExternalConfig(command=["sh", str(code), "{input}", "{output}", str(folder)], time_limit_s=60.0)
outcome = label_frame(make_labeller(config), frame_of(), LabelStore(folder / "labels"), folder / "scratch")
print(json.dumps([outcome.from_store, type(outcome.result).__name__]))
"""

# Says that it was started, then waits to be let go, and has the energy and forces of a crystal at rest.
CODE = """
touch "$3/started-$$"
while ! test -e "$3/go"; do sleep 0.02; done
sed -e 's/Properties=species:S:1:pos:R:3/&:forces:R:3/' -e '2s/$/ energy=-1.0/' -e '3,$s/$/ 0 0 0/' "$1" > "$2"
"""


def ask(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", ASK, str(folder)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)


def waits_for_a_lock(pid: int) -> bool:
    return any("->" in line and f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux's list of locks")
@pytest.mark.parametrize("fate", ["finishes", "is killed"])
def test_of_two_processes_that_want_a_label_one_pays_and_the_other_waits(tmp_path: Path, fate: str) -> None:
    (tmp_path / "code.sh").write_text(CODE)
    first = ask(tmp_path)
    try:
        wait_for(lambda: list(tmp_path.glob("started-*")), "the first to start")
        second = ask(tmp_path)
        wait_for(lambda: waits_for_a_lock(second.pid), "the second to ask")
        if fate == "is killed":
            first.kill()
    finally:
        (tmp_path / "go").touch()
    answers = [json.loads(process.communicate()[0] or "null") for process in (first, second)]
    paid = [False, "Labels"]
    assert answers == ([paid, [True, "Labels"]] if fate == "finishes" else [None, paid])
    assert len(list(tmp_path.glob("started-*"))) == (1 if fate == "finishes" else 2)
    assert len(LabelStore(tmp_path / "labels")) == 1


# --- what it may cost ---------------------------------------------------------------------------------------


def test_all_attempts_share_one_allowance(store: LabelStore, tmp_path: Path) -> None:
    labeller = Scripted("unconverged", GOOD, rungs=2)
    outcome = label_frame(labeller, frame_of(), store, tmp_path, allowance=Allowance(20.0, cores=4.0))
    assert isinstance(outcome.result, Labels)
    first, second = labeller.limits
    assert 4.9 < second <= first < 5.0


def test_a_label_ends_where_its_allowance_does(store: LabelStore, tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text("while True: pass")
    busy = ExternalConfig(command=[sys.executable, "-S", str(tmp_path / "busy.py"), "{input}", "{output}"], time_limit_s=60)
    outcome = label_frame(make_labeller(busy), frame_of(), store, tmp_path, allowance=Allowance(1.5, cores=1.0))
    assert isinstance(outcome.result, LabelFailure)
    assert outcome.result.reason is Reason.BUDGET
    assert 0.9 < outcome.cpu_s <= 1.5
    nothing = label_frame(make_labeller(busy), frame_of(), store, tmp_path, allowance=Allowance(0.01, cores=1.0))
    assert isinstance(nothing.result, LabelFailure)
    assert (nothing.result.reason, nothing.cpu_s < 0.1) == (Reason.BUDGET, True)


def test_a_time_limit_of_its_own_is_no_matter_of_the_budget(store: LabelStore, tmp_path: Path) -> None:
    slow = ExternalConfig(command=["sleep", "60"], time_limit_s=0.3)
    outcome = label_frame(make_labeller(slow), frame_of(), store, tmp_path, allowance=Allowance(100.0, cores=1.0))
    assert isinstance(outcome.result, LabelFailure)
    assert outcome.result.reason is Reason.TIMEOUT


def test_no_money_for_a_repeat_is_nothing_against_a_label(store: LabelStore, tmp_path: Path) -> None:
    labeller = Scripted(GOOD, "budget")
    outcome = label_frame(labeller, frame_of(), store, tmp_path, repeat=np.random.default_rng(0), allowance=Allowance(9.0, 1.0))
    assert outcome.against is None


# --- doubts ------------------------------------------------------------------------------------------------

PULL = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
STRONG = dataclasses.replace(GOOD, forces=PULL)
CALM = Expectation(energy=-1.0, forces=np.zeros((4, 3)), force_bound=0.1)


def test_a_label_as_expected_is_computed_once(store: LabelStore, tmp_path: Path) -> None:
    labeller = Scripted(GOOD)
    outcome = label_frame(labeller, frame_of(), store, tmp_path, expectation=CALM)
    assert (labeller.asked, outcome.against, outcome.computed) == ([0], None, 1)


def test_a_surprise_that_stays_is_believed(store: LabelStore, tmp_path: Path) -> None:
    labeller = Scripted(STRONG, STRONG)
    outcome = label_frame(labeller, frame_of(), store, tmp_path, expectation=CALM)
    assert (labeller.asked, outcome.against, outcome.computed) == ([0, -1], None, 2)


@pytest.mark.parametrize("second", [GOOD, "unconverged"])
def test_a_surprise_that_goes_is_quarantined_and_paid_once(store: LabelStore, tmp_path: Path, second: Labels | str) -> None:
    outcome = label_frame(Scripted(STRONG, second), frame_of(), store, tmp_path, expectation=CALM)
    assert outcome.against is not None
    assert (outcome.against.reason, outcome.against.reason.verdict) == (Reason.IRREPRODUCIBLE, LabelVerdict.QUARANTINED)
    again = label_frame(Scripted(), frame_of(), store, tmp_path, expectation=CALM)
    assert (again.from_store, again.against) == (True, outcome.against)
    store.release(frame_of().uid)
    released = label_frame(Scripted(), frame_of(), store, tmp_path, expectation=CALM)
    assert released.against is None
    assert isinstance(released.result, Labels)
    np.testing.assert_array_equal(released.result.forces, PULL)


def test_a_repeat_of_an_honest_labeller_agrees(store: LabelStore, tmp_path: Path) -> None:
    labeller = make_labeller(AseConfig(calculator="ase.calculators.emt:EMT"))
    outcome = label_frame(labeller, frame_of(), store, tmp_path, repeat=np.random.default_rng(0))
    assert (outcome.against, outcome.computed) == (None, 2)


def test_a_labeller_that_answers_the_same_to_everything_is_found(store: LabelStore, tmp_path: Path) -> None:
    outcome = label_frame(Scripted(STRONG, STRONG), frame_of(), store, tmp_path, repeat=np.random.default_rng(0))
    assert outcome.against is not None
    assert outcome.against.reason is Reason.ASYMMETRIC
    assert isinstance(outcome.result, DoubtfulLabels)


def test_scratch_is_left_empty(store: LabelStore, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    label_frame(Scripted("unconverged", GOOD, rungs=2), frame_of(), store, scratch)
    assert list(scratch.iterdir()) == []


def test_emt_overhead_is_small(store: LabelStore, tmp_path: Path) -> None:
    labeller = make_labeller(AseConfig(calculator="ase.calculators.emt:EMT"))
    label_frame(labeller, frame_of(0), store, tmp_path)  # the first one imports the calculator
    start = time.process_time()
    for seed in range(1, 21):
        assert isinstance(label_frame(labeller, frame_of(seed), store, tmp_path).result, Labels)
    assert (time.process_time() - start) / 20 < 0.05


@pytest.mark.parametrize(
    "config",
    [GpawConfig(), AseConfig(calculator="ase.calculators.emt:EMT"), ExternalConfig(command=["code", "{input}", "{output}"])],
)
def test_every_config_has_its_labeller(config: GpawConfig | AseConfig | ExternalConfig) -> None:
    labeller = make_labeller(config)
    assert labeller.level == make_labeller(config).level
    assert len(labeller.level) == 64
    assert labeller.rungs >= 1
    assert {"labeller", "level of theory", "code"} <= labeller.describe().keys()
