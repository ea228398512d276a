"""A campaign through Slurm: a cluster of one node, jobs submitted by `qlaunch rapidfire` with the template of workflows/.

Needs the packages slurmctld, slurmd, slurm-client and munge, and root; the cluster lives in a temporary folder and on the
loopback interface, and is gone afterwards.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML

from al_leignn.campaign.layout import Layout
from al_leignn.flow.embedded import LAUNCHPAD
from al_leignn.flow.local import run
from al_leignn.flow.upkeep import LOST_S
from al_leignn.flow.watch import Silence
from tests.flow.crash import LEDGER, Paid, environment, fingerprint, litter, make_campaign, runs
from tests.waiting import wait_for

BIN = Path(sys.executable).parent
NEEDED = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel"]

SLURM = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobCompType=jobcomp/filetxt
JobCompLoc={root}/jobs.log
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=8
PartitionName=compute Nodes=ALL Default=YES MaxTime=INFINITE
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        any(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None for name in NEEDED) or os.geteuid() != 0,
        reason="needs root and the Debian packages slurmctld, slurmd, slurm-client and munge",
    ),
]


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Cluster:
    """One node, a partition `compute`, munge and all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = os.environ | {"SLURM_CONF": str(root / "slurm.conf"), "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin"}

    def start(self, stack: ExitStack) -> None:
        root = self.root
        for name in ("state", "spool"):
            (root / name).mkdir()
        (root / "munge.key").write_bytes(secrets.token_bytes(128))
        (root / "munge.key").chmod(0o600)
        conf = SLURM.format(host=socket.gethostname(), root=root, ports=free_ports(2))
        (root / "slurm.conf").write_text(conf)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{name}={root}/munge.{suffix}" for name, suffix in files.items()]
        for command in (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
            with (root / f"{command[0]}.out").open("wb") as out:
                process = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out, start_new_session=True)
            stack.callback(self._end, process)
            if command[0] == "munged":
                wait_for((root / "munge.socket").exists, "munge", 60)
        wait_for(lambda: "idle" in self.call("sinfo", "-h", "-o", "%t"), f"the node; see {root}", every_s=0.5)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def call(self, *words: str) -> str:
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout

    def running(self) -> list[str]:
        return self.call("squeue", "-h", "-t", "R", "-o", "%i").split()

    def ended(self) -> dict[str, str]:
        """State in which each job ended."""
        log = self.root / "jobs.log"
        return dict(re.findall(r"^JobId=(\d+) .*?JobState=(\w+)", log.read_text(), re.MULTILINE)) if log.exists() else {}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    root = tmp_path / "slurm"
    root.mkdir(mode=0o755)
    with ExitStack() as stack:
        cluster = Cluster(root)
        cluster.start(stack)
        yield cluster
        cluster.call("scancel", "--user=root")
        wait_for(lambda: not cluster.call("squeue", "-h"), "the last jobs to end", 60, every_s=0.5)


def adapter(repository: Path, folder: Path, layout: Layout, walltime: str, grace_s: int | None) -> Path:
    """The template as a user would fill it in: their folders, their environment, one core, a walltime."""
    yaml = YAML()
    values = yaml.load(repository / "workflows" / "my_qadapter_slurm.yaml")
    values["rocket_launch"] = (
        values["rocket_launch"]
        .replace("/shared/campaigns/Si", str(layout.root))
        .replace("/shared/my_launchpad.yaml", str(layout.queue / LAUNCHPAD))
        .replace(" --category label", "")
    )
    values |= {"ntasks": 1, "walltime": walltime, "pre_rocket": f"source {BIN}/activate\nexport OMP_NUM_THREADS=1\n"}
    values["signal"] = f"B:TERM@{grace_s}"
    if grace_s is None:
        del values["signal"]
    path = folder / f"my_qadapter_{walltime.replace(':', '')}.yaml"
    with path.open("w") as file:
        yaml.dump(values, file)
    return path


def kill_without_a_word(job: str) -> None:
    """SIGKILL to the worker of a job, as from a node that fails: nobody puts its item back."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job and "worker" in process.cmdline():
                process.kill()
                return
    raise AssertionError(f"job {job} has no worker")


def test_campaign_through_slurm(cluster: Cluster, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = make_campaign(tmp_path / "quiet")
    monkeypatch.setenv(LEDGER, environment(quiet)[LEDGER])
    run(quiet, workers=1, max_iterations=None, watcher=Silence())

    layout = make_campaign(tmp_path / "campaign")
    words = environment(layout) | cluster.environment | {LEDGER: environment(layout)[LEDGER], "PAIR_CODE_PAUSE": "20"}
    (tmp_path / "jobs").mkdir()
    (tmp_path / "my_fworker.yaml").write_text('name: any\ncategory: ""\nquery: "{}"\n')
    launcher = subprocess.Popen([BIN / "al-leignn", "launch", layout.root, "--workers", "0"], env=words)
    launchpad = layout.queue / LAUNCHPAD
    wait_for(lambda: (layout.iteration(0) / "campaign.toml").exists(), "the first workflow")

    def qlaunch(walltime: str, grace_s: int | None, *more: str) -> subprocess.Popen[bytes]:
        files: list[str | Path] = ["-l", launchpad, "-w", tmp_path / "my_fworker.yaml"]
        template = adapter(repository, tmp_path, layout, walltime, grace_s)
        command = [BIN / "qlaunch", *files, "-q", template, "rapidfire", "--sleep", "2", *more]
        with (tmp_path / "qlaunch.log").open("ab") as log:
            return subprocess.Popen(command, env=words, cwd=tmp_path / "jobs", stdout=log, stderr=log)

    paid = Paid(layout)
    assert qlaunch("00:01:00", None, "--nlaunches", "1").wait(60) == 0
    submitter = qlaunch("01:00:00", 60, "--nlaunches", "infinite", "--maxjobs_queue", "5")
    try:
        wait_for(lambda: len(cluster.running()) >= 5, "five jobs at once", every_s=0.5)
        short, cancelled, killed, *_ = sorted(cluster.running(), key=int)
        wait_for(lambda: sum(runs(layout).values()) >= 5, "five labels under way", 300, every_s=0.5)
        cluster.call("scancel", cancelled)
        kill_without_a_word(killed)
        struck = time.monotonic()
        paid.look()
        wait_for(lambda: launcher.poll() is not None, "the end of the campaign", LOST_S + 900, every_s=0.5)
        lasted = time.monotonic() - struck
    finally:
        for process in (submitter, launcher):
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    paid.look()
    assert launcher.returncode == 3
    ended = cluster.ended()
    sys.stdout.write(
        f"\njobs: {ended}; ended {lasted:.0f} s after the kill; {runs(layout).total()} runs for {paid.labels} labels\n"
    )
    assert ended[short] == "TIMEOUT"
    assert ended[cancelled] == "CANCELLED"
    assert ended[killed] == "FAILED"
    assert fingerprint(layout) == fingerprint(quiet)
    assert runs(layout).keys() == runs(quiet).keys()
    assert litter(layout) == []
