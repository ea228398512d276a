"""How long a user waits for an answer that needs no potential: median CPU seconds of fresh processes and all they start.

A budget, not a race: each under 0.5 s, Python's own start included, and nothing here may load torch
(tests/test_package.py holds what may be loaded). CPU and not wall time, which other work on the machine would change more.
"""

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPEATS = 15
PROGRAM = str(Path(sys.executable).with_name("al-leignn"))
CAMPAIGN = Path(__file__).parents[1] / "workflows" / "silicon_cluster"


def cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="start-up-") as folder:
        campaign = shutil.copytree(CAMPAIGN, Path(folder, "Si"))
        commands = {
            "python": [sys.executable, "-c", "pass"],
            "import al_leignn": [sys.executable, "-c", "import al_leignn"],
            "al-leignn --help": [PROGRAM, "--help"],
            "al-leignn schema": [PROGRAM, "schema"],
            "al-leignn status": [PROGRAM, "status", str(campaign)],
            "al-leignn check": [PROGRAM, "check", str(campaign)],  # GPAW is asked for its version and data sets
        }
        print(f"{'command':<20} {'least':>6} {'median':>7}   (CPU s, {REPEATS} runs after a warm-up)")
        for name, command in commands.items():
            cpu_seconds(command)
            found = [cpu_seconds(command) for _ in range(REPEATS)]
            print(f"{name:<20} {min(found):6.2f} {statistics.median(found):7.2f}")


if __name__ == "__main__":
    main()
