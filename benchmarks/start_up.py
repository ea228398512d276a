"""How long a user waits for an answer that needs no potential: median wall time of fresh processes.

A budget, not a race: `--help` under 0.5 s on one core of 2020, and nothing here may load torch.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 5
PROGRAM = str(Path(sys.executable).with_name("al-leignn"))
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import al_leignn": [sys.executable, "-c", "import al_leignn"],
    "al-leignn --help": [PROGRAM, "--help"],
    "al-leignn schema": [PROGRAM, "schema"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(f"{'command':<20} {'median s':>9}   ({REPEATS} runs after a warm-up)")
    for name, command in COMMANDS.items():
        seconds(command)
        print(f"{name:<20} {statistics.median(seconds(command) for _ in range(REPEATS)):9.2f}")
