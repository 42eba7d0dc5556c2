"""Certified ranks in C++: built once for each machine, used where a compiler is at hand."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from utils.rank.inertia import bound_numbers

SWITCH = "HRANK_COMPILED"  # environment variable; "0": do without
SOURCE = Path(__file__).with_name("inertia.cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
_BUILD_SECONDS = 120  # then it is given up


def compiled_ranks() -> Callable[[Tensor], Tensor] | None:
    """Return `certified_ranks` in C++, for contiguous maps on the CPU; None where it cannot be had.

    The first call on a machine compiles it, in a few seconds, into `~/.cache/hrank`.
    """
    return None if os.environ.get(SWITCH) == "0" else _load()


@functools.cache
def _load() -> Callable[[Tensor], Tensor] | None:
    try:
        function = ctypes.CDLL(str(_built())).certified_ranks
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: no home folder
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_int
    function.argtypes = (pointer, ctypes.c_int64, size, size, pointer, pointer)
    function.restype = None

    def ranks(maps: Tensor) -> Tensor:
        _, height, width = maps.shape
        found = torch.empty(len(maps), dtype=torch.int64)
        bound = bound_numbers(max(height, width), maps.device)
        function(maps.data_ptr(), len(maps), height, width, bound.data_ptr(), found.data_ptr())
        return found

    return ranks


def _built() -> Path:
    """Return the shared library for this source, compiler and processor; build it if need be.

    Raises:
        OSError, subprocess.SubprocessError: there is no compiler, or it fails.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise FileNotFoundError("no C++ compiler")
    made_of = (SOURCE.read_text(), *_FLAGS, compiler, platform.machine(), _processor())
    name = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hrank"
    library = folder / f"inertia-{name}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            unfinished = Path(scratch) / library.name
            command = [compiler, *_FLAGS, str(SOURCE), "-o", str(unfinished)]
            subprocess.run(command, check=True, capture_output=True, timeout=_BUILD_SECONDS)
            unfinished.replace(library)  # two builders at once: each puts a whole file there
    return library


def _processor() -> str:
    """Return what tells processors apart: a home folder may be shared by several machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
