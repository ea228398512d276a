"""From native/ to a shared library: compiled once for each size of network, precision and processor, and kept.

It lies in $XDG_CACHE_HOME/al-leignn (by default ~/.cache/al-leignn), named after all that it was made of.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from al_leignn.store import write_atomic

_SOURCES = Path(__file__).with_name("native")

# Square roots set no errno and nothing traps, so loops with them become vector code; NaN and infinity stay what they are.
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")


class KernelError(Exception):
    """The kernel cannot be used; the message says why."""


@cache
def library(features: int, radial: int, dtype: torch.dtype) -> ctypes.CDLL:
    """The kernel for this size of network, from the user's cache folder or compiled now.

    Raises
    ------
    KernelError
        It can be neither found nor compiled.
    """
    real = {torch.float32: "float", torch.float64: "double"}[dtype]
    defines = (f"-DREAL={real}", f"-DFEATURES={features}", f"-DRADIAL={radial}")
    try:
        sources = [path.read_bytes() for path in sorted(_SOURCES.iterdir())]
        name = hashlib.sha256(repr((sources, _FLAGS, defines, _processor())).encode()).hexdigest()[:32]
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "al-leignn"
        path = folder / f"kernel-{name}.so"
        if not intact(path):
            binary = compile_sources(defines)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The digest stands behind the binary, where a loader does not look: a damaged library can crash the process.
            write_atomic(path, binary + hashlib.sha256(binary).digest())
        loaded = ctypes.CDLL(str(path))
    except (OSError, RuntimeError) as error:
        raise KernelError(f"it cannot be compiled, kept or loaded: {error}") from None
    for function in (loaded.lanes, loaded.index_edges, loaded.workspace_size):
        function.restype = ctypes.c_int64
    return loaded


def compile_sources(defines: Sequence[str]) -> bytes:
    """A shared library; raises `KernelError` without a compiler that can make it."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise KernelError("there is no C++ compiler; install g++, or set CXX")
    with tempfile.TemporaryDirectory(prefix="al-leignn-") as folder:
        out = Path(folder) / "kernel.so"
        for threads in (["-fopenmp"], []):  # a compiler without OpenMP makes a kernel for one thread
            command = [compiler, *_FLAGS, *threads, *defines, str(_SOURCES / "kernel.cpp"), "-o", str(out)]
            try:
                done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
            except subprocess.TimeoutExpired:
                raise KernelError(f"{compiler} did not finish within 300 s") from None
            if done.returncode == 0:
                return out.read_bytes()
    raise KernelError(f"{compiler} failed: {done.stderr.strip()[:500]}")


def intact(path: Path) -> bool:
    """Whether a kept library is there and whole."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


@cache
def _processor() -> str:
    """What code for this very processor depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))
