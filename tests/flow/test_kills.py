"""Killed at random instants - runner, worker, labeller, database server, all at once - a campaign ends as if nothing had been."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from al_leignn.campaign.layout import Layout
from tests.flow.crash import CODE, LEDGER, Paid, environment, fingerprint, litter, make_campaign, runs

AL = Path(sys.executable).with_name("al-leignn")
VICTIMS = {"run": ["runner", "worker", "labeller", "all"], "launch": ["runner", "worker", "labeller", "server", "all"]}
SIGNALS = [signal.SIGKILL, signal.SIGTERM]

QUICK, THOROUGH = (2, 0.5), (100, 0.2)
"""Kills on a runner, and the longest wait before the next, in lengths of an undisturbed campaign."""

LABEL_S = 0.15
"""How long a labeller lives, about."""


def start(runner: str, layout: Layout, workers: int) -> subprocess.Popen[str]:
    words = [str(AL), runner, str(layout.root), "--workers", str(workers)]
    return subprocess.Popen(words, env=environment(layout), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def alive(layout: Layout) -> list[psutil.Process]:
    """Processes that work on a campaign, those it started itself included."""
    mark = environment(layout)[LEDGER]
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(LEDGER) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def role(process: psutil.Process, runner: int) -> str:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    if process.pid == runner:
        return "runner"
    if "secantusd" in words:
        return "server"
    if "guard.py" in words:
        return "guard"
    return "labeller" if str(CODE) in words else "worker" if "spawn_main" in words else ""


def hunt(layout: Layout, runner: int, victim: str, number: signal.Signals, spared: set[str], rng: random.Random) -> bool:
    """Send the signal to one such process at a random instant of its life, or to all; whether there was one."""
    if victim == "all":
        return sum(strike(process, number) for process in alive(layout)) > 0
    try:
        family = [psutil.Process(runner), *psutil.Process(runner).children(recursive=True)]
    except psutil.NoSuchProcess:
        return False
    chosen = [process for process in family if role(process, runner) == victim]
    if victim != "labeller":
        return any(strike(process, number) for process in chosen[:1])
    # One frame is not struck twice: a second kill in a row is believed to be the frame's fault.
    for process in chosen:
        if (uid := frame_of(process)) and uid not in spared:
            time.sleep(rng.uniform(0.0, LABEL_S))
            if strike(process, number):
                spared.add(uid)
                return True
    return False


def strike(process: psutil.Process, number: signal.Signals) -> bool:
    """Whether it was still there."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def frame_of(labeller: psutil.Process) -> str:
    try:
        head = Path(labeller.cmdline()[-2]).read_text().splitlines()[1]
    except (psutil.Error, OSError, IndexError):
        return ""
    return next((word.removeprefix("uid=id:") for word in head.split() if word.startswith("uid=id:")), "")


def run_quietly(runner: str, layout: Layout) -> float:
    """Run a campaign to its end; seconds."""
    begun = time.monotonic()
    process = start(runner, layout, 1)
    out, _ = process.communicate(timeout=1200)
    assert process.returncode == 3, out
    return time.monotonic() - begun


def run_under_fire(runner: str, layout: Layout, rng: random.Random, wait_s: float, most: int, counts: Counter[str]) -> None:
    """Run a campaign to its end, again and again killing something at a random instant, `most` times altogether."""
    paid, spared, struck, starts = Paid(layout), set[str](), 0, 1
    process = start(runner, layout, rng.choice([1, 2]))
    while True:
        try:
            out, _ = process.communicate(timeout=rng.uniform(0.0, wait_s) if struck < most else 1200)
        except subprocess.TimeoutExpired:
            # The victim is chosen first and waited for: else labellers, which live for a moment, would hardly ever be met.
            victim, number = rng.choice(VICTIMS[runner]), rng.choice(SIGNALS)
            while not (hit := hunt(layout, process.pid, victim, number, spared, rng)) and process.poll() is None:
                time.sleep(0.01)
            struck += hit
            counts.update([f"{victim} {number.name}"] if hit else [])
            paid.look()
            continue
        assert "Traceback" not in out
        if process.returncode == 3:
            break
        starts += 1
        assert starts <= 1 + struck, f"it stops by itself: {out}"
        process = start(runner, layout, rng.choice([1, 2]))
    paid.look()
    assert paid.labels == len(runs(layout, "end"))


def wait_until_gone(layout: Layout) -> list[psutil.Process]:
    deadline = time.monotonic() + 30
    while (left := alive(layout)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float, Counter[str]]:
    """What a campaign comes to that nobody disturbs, how long it takes, and the runs of its labeller."""
    layout = make_campaign(tmp_path_factory.mktemp("quiet") / "campaign")
    seconds = run_quietly("run", layout)
    assert litter(layout) == []
    assert set(runs(layout).values()) == {1}
    return fingerprint(layout), seconds, runs(layout)


@pytest.mark.timeout(14400)
@pytest.mark.parametrize(
    ("runner", "kills", "wait"),
    [
        ("run", *QUICK),
        pytest.param("run", *THOROUGH, marks=pytest.mark.slow),
        pytest.param("launch", *THOROUGH, marks=pytest.mark.slow),
    ],
)
def test_killed_anywhere_ends_the_same(
    quiet: tuple[dict[str, Any], float, Counter[str]], tmp_path: Path, runner: str, kills: int, wait: float
) -> None:
    expected, length_s, labels = quiet
    rng, counts = random.Random(f"{runner} {kills}"), Counter[str]()
    campaigns = 0
    while counts.total() < kills:
        layout = make_campaign(tmp_path / str(campaigns))
        run_under_fire(runner, layout, rng, wait * length_s, kills - counts.total(), counts)
        campaigns += 1
        assert fingerprint(layout) == expected
        assert runs(layout).keys() == labels.keys()
        assert wait_until_gone(layout) == []
        assert litter(layout) == []
        sys.stdout.write(f"\n{runner}: {counts.total()} kills in {campaigns} campaigns: {dict(sorted(counts.items()))}\n")
        sys.stdout.flush()
