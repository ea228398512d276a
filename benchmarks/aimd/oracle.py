"""How often a campaign is wrong to call itself converged, or misses that it is: with an oracle that is known exactly.

    python benchmarks/aimd/oracle.py FOLDER [--seeds 5] [--ps 40] [--truth-ps 200]

Eight atoms of copper at 600 K with EMT labels. For each seed a campaign is grown from the crystal alone and held to `--ps` of
EMT-driven MD as its reference, by the commands that users have; then its committee is compared with `--truth-ps` of other such
MD, too much for its noise to matter: the truth about what was decided. Every command resumes. A table is printed at the end.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import tomlkit
from ase.build import bulk
from ase.io import write
from states import al

TEMPERATURE = 600
OBSERVABLES = ["rdf", "adf", "energy", "forces", "vdos"]
FRICTION = 20
"""1/ps: energies are forgotten within 50 fs, so that references of tens of ps decide."""

CONFIG: dict[str, dict[str, Any]] = {
    "train": {"members": 3, "steps": 1000, "warm_steps": 400},
    "explore": {"steps": 1000},
    "budget": {"labels": 100, "iterations": 6},
    "converge": {"references": [f"aimd-{TEMPERATURE}K.extxyz"], "observables": OBSERVABLES},
}


def campaign(folder: Path, seed: int, ps: float, truth_ps: float) -> dict[str, Any]:
    """One campaign, its decision, and the truth about it."""
    if (folder / "result.json").exists():
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    folder.mkdir(parents=True, exist_ok=True)
    config_file = folder / "campaign" / "campaign.toml"
    if not config_file.exists():
        write(folder / "Cu.extxyz", bulk("Cu", "fcc", a=3.62, cubic=True).repeat((2, 1, 1)))
        words = ("--labeller", "ase", "--calculator", "ase.calculators.emt:EMT", "--temperature", str(TEMPERATURE))
        al("init", "Cu.extxyz", "--dir", "campaign", *words, "--seed", str(seed), cwd=folder)
        config = tomlkit.parse(config_file.read_text(encoding="utf-8"))
        for section, values in CONFIG.items():
            config[section].update(values)
        config["explore"]["supercell"] = [1, 1, 1]
        config_file.write_text(tomlkit.dumps(config), encoding="utf-8")
    common = ("aimd", "campaign", "--temperature", str(TEMPERATURE), "--friction-per-ps", str(FRICTION), "--timestep-fs", "4")
    al(*common, "--ps", str(ps), "--stride", "2", "--seed", str(seed), cwd=folder)
    truth = folder / "truth.extxyz"
    al(*common, "--ps", str(truth_ps), "--stride", "5", "--seed", str(1000 + seed), "--out", truth, cwd=folder)
    al("run", "campaign", "--workers", "1", cwd=folder, accept=(0, 3))
    status = json.loads(al("status", "--json", cwd=folder / "campaign"))
    md = folder / "md.extxyz"
    md.unlink(missing_ok=True)
    words = ("validate", "campaign", "--reference", truth, "--ps", str(truth_ps), "--out", md, "--json")
    found = json.loads(al(*words, cwd=folder, accept=(0, 1)))
    beyond = [o["name"] for o in found["observables"] if o["kind"] in OBSERVABLES and o["difference"] > o["tolerance"]]
    decision = status["decision"]
    result = {
        "seed": seed,
        "decision": decision["kind"],
        "observables held": decision["conditions"].get("observables"),
        "reason": decision["reason"],
        "labels": status["labels"]["computed"],
        "beyond tolerance in truth": beyond,
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ps", type=float, default=40.0)
    parser.add_argument("--truth-ps", type=float, default=200.0)
    options = parser.parse_args()
    found = [campaign(options.folder / f"{n:02d}", n, options.ps, options.truth_ps) for n in range(options.seeds)]
    print("| seed | decision | labels | truly beyond its tolerance | |\n| --- | --- | --- | --- | --- |")
    for one in found:
        converged, right = one["decision"] == "converged", not one["beyond tolerance in truth"]
        verdict = "right" if converged is right else "wrong" if converged else "missed"
        beyond = ", ".join(one["beyond tolerance in truth"]) or "nothing"
        print(f"| {one['seed']} | {one['decision']} | {one['labels']} | {beyond} | {verdict} |")
