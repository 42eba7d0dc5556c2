"""The pages' examples: what the commands print, and find, of the network that `main.py demo` makes.

`python -m utils.benchmarks.examples` runs them all in a temporary folder, on the CPU, stores their
results beside this file and renews the blocks; `--render` only renews the blocks.
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from utils.paper.markdown import table
from utils.paper.pages import ROOT, write_block
from utils.runs.atomic_write import write_json
from utils.runs.environment import environment
from utils.runs.notes import note

STORED = Path(__file__).with_suffix(".json")
NETWORK = "--arch resnet_8 --resume result/demo/baseline/checkpoints/best.pt --dataset shapes"
PRUNED = "result/demo/pruned/pruned.pt"
_PRUNE = f"main.py prune {NETWORK} --rank_conv result/demo/rank_conv"

OUTPUTS = {  # block: the command, and the sections of its output to show, or all
    "demo": ("main.py demo", ()),
    "example_scan": (f"main.py scan {NETWORK} --criterion l1 --rates 0.3,0.6,0.9", ()),
    "example_evaluate": (f"main.py evaluate {NETWORK} --against {PRUNED} --batch_sizes 1,100", ()),
    "example_steps": (
        f"{_PRUNE} --ratio 0.3 --schedule iterative --steps 3 --rerank --epochs 1",
        (),
    ),
    "example_weights": (
        f"main.py prune {NETWORK} --granularity weight --sparsity 0.9 --epochs 1 "
        "--job_dir result/demo/weights",
        ("Accuracy",),
    ),
    "example_sparse": (
        "main.py evaluate --resume result/demo/weights/pruned.pt --dataset shapes --sparse",
        ("Zeros of",),
    ),
    "example_export": (f"main.py export --resume {PRUNED} --dataset shapes --format pt2", ()),
}
STUDIES = {  # block: what all runs have in common, and the values of the flags that they vary
    "study_allocation": (
        f"{_PRUNE} --target_macs 0.5 --epochs 0",
        {"--criterion": ("rank", "l1"), "--allocation": ("uniform", "global", "sensitivity")},
    ),
    "study_criteria": (
        f"{_PRUNE} --epochs 0",
        {
            "--ratio": ("0.1", "0.3"),
            "--criterion": ("first", "input_norm", "l1", "rank", "random"),
        },
    ),
    "study_weights": (
        f"main.py prune {NETWORK} --granularity weight --epochs 0",
        {"--sparsity": ("0.5", "0.8", "0.9"), "--threshold": ("layer", "global")},
    ),
}


def excerpt(text: str, sections: Sequence[str]) -> str:
    """Return the sections of a Markdown text whose headings begin so, without the headings.

    Without any it is the whole text, but for the headings.
    """
    before, *parts = re.split(r"^#+ (.*)\n", text, flags=re.MULTILINE)
    bodies = [("", before), *zip(parts[::2], parts[1::2], strict=True)]
    wanted = tuple(sections) or ("",)
    found = [body.strip() for title, body in bodies if title.startswith(wanted)]
    return "\n\n".join(filter(None, found))


def block_text(name: str, stored: Mapping[str, Any]) -> str:
    """Return a block: the command, what it printed or the table of its runs, and the hardware."""
    made, command = stored["environment"], stored["command"]
    if name in OUTPUTS:
        shown = f"```text\n{stored['output']}\n```"
    else:
        shown = _study(stored["rows"])
        command = _with_flags(command, stored["rows"][0]["flags"])
    return f"    python {_wrapped(command)}\n\n{shown}\n\n{hardware_line(made)}"


def hardware_line(made: Mapping[str, Any]) -> str:
    """Return on what something was measured, as `hardware` found it."""
    threads = f"{made['threads']} of {made['cpus']} threads"
    return f"{made['device']}, {threads}; torch {made['torch']}."


def hardware() -> dict[str, Any]:
    """Return what `hardware_line` says of this machine."""
    found = environment(torch.device("cpu"))
    return {name: found[name] for name in ("device", "threads", "cpus", "torch")}


def _with_flags(command: str, flags: Mapping[str, str]) -> str:
    return " ".join([command, *(f"{flag} {value}" for flag, value in flags.items())])


def _wrapped(command: str) -> str:
    """Return a command on lines of some hundred columns, as a shell reads it."""
    lines = [""]
    for part in re.split(r" (?=--)", command):
        if lines[-1] and len(lines[-1]) + len(part) > 100:
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]} {part}".strip()
    return " \\\n        ".join(lines)


def _study(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the runs of a study as a table: the flags that vary, costs, accuracy."""
    flags = list(rows[0]["flags"])
    header = (*(f"`{flag}`" for flag in flags), "MACs left", "right, not fine-tuned")
    header += ("95% interval", "file")
    return table(header, [_study_row(row) for row in rows])


def _study_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    found = row["pruned"]
    low, high = found["interval_percent"]
    return (
        *row["flags"].values(),
        f"{100 * row['macs_left']:.1f}%",
        f"{found['correct']} of {found['images']}",
        f"{low:.1f} to {high:.1f}%",
        f"{row['file_bytes'] / 1e3:.0f} kB",
    )


def run_command(command: str, folder: Path) -> str:
    """Run a door in a folder and return what it printed."""
    note(command)
    door, *words = shlex.split(command)
    words = [sys.executable, str(ROOT / door), *words, "--device", "cpu"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{command}: {done.stderr.splitlines()[-1]}")
    return done.stdout


def _run_study(command: str, varied: Mapping[str, Sequence[str]], folder: Path) -> list[dict]:
    """Run a command with every combination of the flags' values; return the facts of each run."""
    combinations: list[dict[str, str]] = [{}]
    for flag, values in varied.items():
        combinations = [{**flags, flag: value} for flags in combinations for value in values]
    rows = []
    for flags in combinations:
        found = json.loads(run_command(f"{_with_flags(command, flags)} --json", folder))
        macs = {state: cost["macs"] for state, cost in found["physical"].items()}
        rows.append(
            {
                "flags": flags,
                "macs_left": macs["pruned"] / macs["dense"],
                "pruned": found["accuracy"]["pruned"]["test"],
                "file_bytes": found["pruned_file_bytes"],
            }
        )
    return rows


def run_all(folder: Path) -> dict[str, Any]:
    """Run every example in a folder, the demo first; return {block: what `block_text` takes}."""
    made = hardware()
    stored = {
        name: {"command": command, "output": excerpt(run_command(command, folder), sections)}
        for name, (command, sections) in OUTPUTS.items()
    }
    for name, (command, varied) in STUDIES.items():
        stored[name] = {"command": command, "rows": _run_study(command, varied, folder)}
    return {name: {**found, "environment": made} for name, found in stored.items()}


def main(argv: Sequence[str]) -> int:
    """Run the examples, or with `--render` take the stored ones; renew the blocks."""
    if list(argv) != ["--render"]:
        with tempfile.TemporaryDirectory() as folder:
            write_json(STORED, run_all(Path(folder)))
    for name, found in json.loads(STORED.read_text(encoding="utf-8")).items():
        write_block(name, block_text(name, found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
