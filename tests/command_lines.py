"""The two doors as a user starts them: real processes, and what they leave on disk."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import utils.commands.prune
from utils.runs.checkpoint import load_file

ROOT = Path(__file__).parents[1]
LONGEST_SECONDS = 300  # that a process takes
_TIMED = dict.fromkeys(("dense", "pruned"), {"median_ms": 1.0, "batch_size": 1})
QUICK = {  # in utils.commands.prune: neither times networks nor draws, most of a tiny run's time
    "latencies": lambda *_: dict.fromkeys(("one_image", "batch"), _TIMED),
    **dict.fromkeys(("log_plan", "log_weights", "write_layer_figure"), lambda *_: None),
}


def quicken(set_attribute: Callable[[object, str, object], None] = setattr) -> None:
    """Put the stand-ins of QUICK in their places."""
    for name, stand_in in QUICK.items():
        set_attribute(utils.commands.prune, name, stand_in)


_CLOSED = "http://127.0.0.1:9"  # nobody listens there, so every download fails at once


def start(words: list[str], cwd: Path, launcher: Sequence[str] = ()) -> subprocess.Popen:
    """Start `python launcher words` in `cwd`, on one thread, off line, each warning an error."""
    script, *rest = words
    quiet = {"PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1", "NO_PROXY": "", "no_proxy": ""}
    proxies = {f"{kind}_proxy": _CLOSED for kind in ("http", "https")}
    return subprocess.Popen(
        [sys.executable, *launcher, str(ROOT / script), *rest],
        cwd=cwd,
        env=os.environ | quiet | proxies | {name.upper(): url for name, url in proxies.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def json_of(process: subprocess.Popen) -> dict[str, Any]:
    """Wait for the process; return the one JSON object that is all of its standard output."""
    out, err = process.communicate(timeout=LONGEST_SECONDS)
    assert process.returncode == 0, err
    assert out.count("\n") == 1, out
    return json.loads(out)


def refused_for_a_full_disk(call, words: list[str], disk_takes, amounts) -> tuple[set[str], Any]:
    """Call a run in the folder `job` whose disk is full at a later write each time, until it ends.

    Return the files that could not be written, and the last outcome.
    """
    full = r"error: cannot write job/(\S+) \(No space left on device\): expected a writable pl"
    refused: set[str] = set()
    for files in amounts:
        disk_takes(files)
        outcome = call("main.py", *words)
        if outcome.code == 0:
            break
        *_, sentence = outcome.err.splitlines()
        assert (outcome.code, outcome.out) == (2, "") and "Traceback" not in outcome.err
        refused.add(re.search(full, sentence)[1])
        for path in Path("job").rglob("*.pt"):
            load_file(path)
        assert not list(Path("job").rglob("*.unfinished"))
    return refused, outcome


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file under `folder`; locks and unfinished files are hidden ones."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
