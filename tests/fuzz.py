"""A fuzzer: bad options and bad files end in one sentence and exit code 2, and nothing is lost.

`python -m tests.fuzz --lines 2000 --seed 0` tries so many, each in a copy of a folder with a tiny
network, its images, its ranks and its runs, and prints how they ended.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

import main
import rank_generation
from models.registry import build_model
from tests import own_networks, spoils
from tests.command_lines import QUICK, files_in
from tests.spoils import Spoil

DOORS = {"main.py": main.main, "rank_generation.py": rank_generation.main}
MOST_SECONDS = 5  # of computing, for one command line
_WAITING = 60  # times as long may pass by the clock, where others compute, too

DATA = "--arch resnet_8 --dataset folder --data_dir images --device cpu --eval_batch_size 4".split()
NETWORK = [*DATA, "--resume", "net.pt"]
TUNED = [*NETWORK, "--epochs", "1", "--train_batch_size", "8"]
RATIO = ["--ratio", "0.3"]
RANKED = [*RATIO, "--rank_conv", "ranks"]
L1 = ["--criterion", "l1"]
STEPS = ["--schedule", "iterative", "--steps", "2"]
PHOTOS = ["--dataset", "imagenet", "--data_dir", "photos", "--workers", "0"]
LINES = {  # what is called, door first
    "evaluate": ["main.py", "evaluate", *NETWORK, "--repeats", "1"],
    "ranks": ["rank_generation.py", *NETWORK, "--num_images", "4", "--output", "new"],
    "plan": ["main.py", "prune", *NETWORK, *RANKED, "--dry_run"],
    "plan l1": ["main.py", "prune", *NETWORK, *RATIO, *L1, "--dry_run"],
    "masked": ["main.py", "prune", *NETWORK, *RATIO, *L1, "--dry_run"]
    + ["--start_cov", "1", "--resume_mask", "mask"],
    "oneshot": ["main.py", "prune", *TUNED, *RANKED, "--job_dir", "oneshot"],
    "iterative": ["main.py", "prune", *TUNED, *RANKED, *STEPS, "--job_dir", "iterative"],
    "weights": ["main.py", "prune", *TUNED, "--granularity", "weight", "--sparsity", "0.5", *STEPS]
    + ["--job_dir", "weights"],
    "zeros": ["main.py", "prune", *NETWORK, "--remove_zeros", "--job_dir", "zeros"],
    "rates": ["main.py", "prune", *NETWORK, *L1, "--rates", "rates.json", "--dry_run"],
    "in time": ["main.py", "prune", *NETWORK, *L1, "--target_latency", "0.9", "--dry_run"]
    + ["--latency_threads", "1"],
    "budget": ["main.py", "prune", *NETWORK, *L1, "--target_macs", "0.7", "--epochs", "0"]
    + ["--job_dir", "budget"],
    "scan": ["main.py", "scan", *NETWORK, *L1, "--rates", "0.3", "--num_images", "2"]
    + ["--job_dir", "scan"],
    "by scan": ["main.py", "prune", *NETWORK, *L1, "--target_macs", "0.9", "--dry_run"]
    + ["--allocation", "sensitivity", "--scan", "scan"],
    "train": ["main.py", "train", *DATA, "--epochs", "1", "--train_batch_size", "8"]
    + ["--job_dir", "baseline"],
    "pruned": ["main.py", "evaluate", *DATA, "--resume", "finished/pruned.pt", "--repeats", "1"],
    "photos": ["main.py", "evaluate", *NETWORK, *PHOTOS, "--repeats", "1"],
    "own": ["main.py", "layers", "--arch", "net.py:build", "--image_size", "32"],
    "compare": ["main.py", "compare", "--arch", "resnet_56", "--job_dir", "finished"],
    "export": ["main.py", "export", *NETWORK, "--format", "pt2"],
}
MADE = ("oneshot", "iterative", "weights", "budget", "scan", "train")  # the runs of the folder
_LAST = ("stage", "epoch", "finished", "under_way", "seconds", "log_lines", "records", "optimizer")
_RUN = ("config.json", spoils.json_spoils())
_PRUNED = ("format", "arch", "num_classes", "form", "kept", "state_dict", "provenance")
_TABLE = "result/latency/eager_cpu_1_1.json"
FILES: dict[str, list[tuple[str, dict[str, Spoil]]]] = {  # of each line, what it reads
    "evaluate": [("net.pt", spoils.TENSORS), ("images/test/a/0.png", spoils.IMAGES)],
    "ranks": [("net.pt", spoils.TENSORS), ("images/train/a/0.png", spoils.IMAGES)],
    "plan": [
        ("ranks/rank_conv2.npy", spoils.ARRAYS),
        ("ranks/manifest.json", spoils.json_spoils("arch")),
        ("ranks/manifest.json", spoils.json_spoils("layers", "sites", "file", needed=False)),
    ],
    "plan l1": [("net.pt", spoils.TENSORS)],
    "masked": [("mask", spoils.ANY_FILE)],
    "oneshot": [
        (f"oneshot/{name}", kinds)
        for name, kinds in (
            _RUN,
            ("plan.json", spoils.json_spoils()),
            ("log.jsonl", spoils.NO_FILE),
            ("checkpoints/last.pt", spoils.field_spoils(*_LAST)),
        )
    ],
    "iterative": [("iterative/checkpoints/steps.pt", spoils.field_spoils("step", "plan"))],
    "weights": [
        ("weights/checkpoints/steps.pt", spoils.field_spoils("step", "masks", "done")),
        ("weights/checkpoints/last.pt", spoils.field_spoils(*_LAST)),
        (f"weights/{_RUN[0]}", _RUN[1]),
    ],
    "zeros": [("net.pt", spoils.TENSORS)],
    "rates": [("rates.json", spoils.json_spoils())],
    "in time": [(_TABLE, spoils.json_spoils("block", "cells"))],
    "pruned": [
        ("finished/pruned.pt", spoils.TENSORS),
        ("finished/pruned.pt", spoils.field_spoils(*_PRUNED)),
    ],
    "photos": [("photos/val/a/0.png", spoils.IMAGES)],
    "own": [("net.py", spoils.CODE)],
    "budget": [("budget/budget.json", spoils.json_spoils("of", "target", "left", "compress_rate"))],
    "scan": [("scan/log.jsonl", spoils.line_spoils()), (f"scan/{_RUN[0]}", _RUN[1])],
    "by scan": [
        ("scan/summary.json", spoils.json_spoils("dense")),
        ("scan/log.jsonl", spoils.line_spoils()),
        ("scan/config.json", spoils.json_spoils("command", "rates", "masks_sha256")),
    ],
    "train": [("baseline/checkpoints/last.pt", spoils.field_spoils(*_LAST))],
    "compare": [("finished/summary.json", spoils.json_spoils("physical", "accuracy", "options"))],
}
_OPTIONS_OF = ("evaluate", "ranks", "plan l1", "oneshot", "weights", "zeros", "rates", "scan")
_OPTIONS_OF += ("train", "compare", "export")


class Hung(BaseException):
    """A command line took longer than any should."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A command line, what is wrong with it in words, and the file that is spoilt, if any."""

    words: list[str]
    wrong: str
    file: str = ""
    spoil: Spoil | None = None


def prepare(folder: Path) -> None:
    """Make a folder with images, a network of fresh weights, its ranks and other files, and runs.

    Of some the summary is missing, as if they had been stopped at the very end.
    """
    noise = np.random.default_rng(0)
    for split, count in {"train": 8, "test": 2}.items():
        for name in "ab":
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            for number, pixels in enumerate(noise.integers(0, 256, (count, 32, 32, 3), np.uint8)):
                Image.fromarray(pixels).save(place / f"{number}.png")
    torch.manual_seed(0)
    torch.save({"state_dict": build_model("resnet_8", 2).state_dict()}, folder / "net.pt")
    torch.save({0: torch.ones(16, 1, 1, 1)}, folder / "mask", _use_new_zipfile_serialization=False)
    for split, name in {"train": "train", "test": "val"}.items():
        shutil.copytree(folder / "images" / split, folder / "photos" / name)
    (folder / "rates.json").write_text('{"layer1.0.conv1": 0.3, "layer2.*": 0.5}')
    (folder / "net.py").write_text(own_networks.NET)
    table = {"measured_on": {}, "block": 8, "uneven": 1.0, "cells": {"conv": 0.1}}
    (folder / _TABLE).parent.mkdir(parents=True)
    (folder / _TABLE).write_text(json.dumps(table))
    with _inside(folder):
        ranking = [*LINES["ranks"][:-1], "ranks"]
        for words in (ranking, *(LINES[name] for name in MADE)):
            code, err = _called(words)
            assert code == 0, err
    shutil.copytree(folder / "oneshot", folder / "finished")
    for name in ("oneshot", "iterative", "weights", "budget"):  # what is finished is not taken up
        (folder / name / "summary.json").unlink()


def cases(chance: random.Random) -> Iterator[Case]:
    """Yield bad command lines and files, without end, as the chance has it."""
    while True:
        if chance.random() < 0.5:
            yield _bad_option(chance)
        else:
            line = chance.choice(list(FILES))
            file, kinds = chance.choice(FILES[line])
            kind = chance.choice(list(kinds))
            yield Case(LINES[line], f"{line}: {file}: {kind}", file, kinds[kind])


def complaint(case: Case, source: Path, folder: Path, seed: int) -> str:
    """Try a case in `folder`, a copy of `source`; return what is wrong with its end, "" if nothing.

    It should end with exit code 2 and one sentence, which names the file, and leave all files.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    with _inside(folder):
        if case.spoil is not None:
            case.spoil(folder / case.file, random.Random(seed))
        before = files_in(folder)
        try:
            code, err = _called(case.words)
        except Hung:
            return "hung"
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"traceback: {type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        after = files_in(folder)
    sentences = [line for line in err.splitlines() if "error:" in line]
    if code == 0:
        return "accepted"
    if code != 2 or len(sentences) != 1 or not err.endswith(f"{sentences[0]}\n"):
        return f"exit code {code}: {err[-300:]}"
    if case.file and Path(case.file).name not in sentences[0] and not _names_folder(case, err):
        return f"does not name the file: {sentences[0]}"
    lost = [name for name in before if after.get(name) != before[name]]
    return f"lost: {lost}" if lost else ""


def _names_folder(case: Case, err: str) -> bool:
    folder = str(Path(case.file).parent)
    return folder != "." and folder in err


def _called(words: list[str]) -> tuple[int, str]:
    """Call a door and return its exit code and its standard error.

    Raises:
        Hung: it took too long.
    """

    def hung(*_: object) -> None:
        raise Hung

    door, *rest = words
    err = io.StringIO()
    handlers = {number: signal.signal(number, hung) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS * _WAITING)
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            return DOORS[door](rest), err.getvalue()
    except SystemExit as stop:
        return int(stop.code or 0), err.getvalue()
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in `folder`, where `prune` neither times networks nor draws."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.ExitStack() as stack:
            for name, stand_in in QUICK.items():
                stack.enter_context(mock.patch(f"utils.commands.prune.{name}", stand_in))
            yield
    finally:
        os.chdir(here)


def _bad_option(chance: random.Random) -> Case:
    """Return a line with a flag that nobody knows, or a value that its flag cannot have."""
    line = LINES[chance.choice(_OPTIONS_OF)]
    config = _config_of(line)
    unread = ("data_dir", "job_dir") if "--dry_run" in line else ()
    unread += ("data_dir",) if "--remove_zeros" in line else ()
    field = chance.choice([x for x in dataclasses.fields(config) if x.name not in unread])
    flag = f"--{field.name}"
    if chance.random() < 0.1:
        position = chance.randrange(3, len(flag) + 1)
        flag = flag[:position] + chance.choice("xq9") + flag[position:]
        return Case([*line, flag, "1"], f"{line[1]}: flag {flag}")
    value = chance.choice(_bad_values(field, typing.get_type_hints(config)[field.name]))
    words = [f"{flag}={value}"] if value is not None else [flag]
    return Case([*line, *words], f"{line[0]} {line[1]}: {words[0][:80]}")


def _config_of(line: list[str]) -> type:
    if line[0] == "rank_generation.py":
        return rank_generation.RankConfig
    return main.entry_of(line[1], line[2:]).config


def _bad_values(field: dataclasses.Field, hint: object) -> list[str | None]:
    """Return words that no such option has; None stands for no word at all."""
    kind = re.sub(r"<class '(.*)'>", r"\1", str(hint))
    if kind == "bool":
        return ["yes", "1", "false"]
    if "int" in kind or "float" in kind:
        words = ["x", "nan", "inf", "1e999", "-7", "0x10", "1;2", "--"]
        words += ["9" * 30] if "int" in kind else []
        return words if "tuple" in kind else [*words, ""]
    if field.metadata["choices"]:
        return ["", "nonsense", str(field.metadata["choices"][0]).upper() + "x", "../x"]
    if "Path" in kind and field.name in ("resume", "data_dir", "resume_mask"):
        return ["x" * 300, "absent", "ranks", "net.pt/x", "/dev/null", "\udcff"]
    if "Path" in kind and field.name in ("job_dir", "output", "tensorboard"):
        return ["net.pt", "net.pt/x", "x" * 300, "/dev/null/x", "/proc/x"]
    return ["nonsense"] if field.name in ("arch", "device", "gpu", "sparsity") else ["--"]


def run(lines: int, seed: int, folder: Path) -> tuple[Counter, list[str]]:
    """Try so many cases; return {how they ended: how many} and the complaints."""
    source = folder / "source"
    source.mkdir()
    prepare(source)
    chance, ends, complaints = random.Random(seed), Counter(), []
    for number, case in zip(range(lines), cases(chance), strict=False):
        found = complaint(case, source, folder / "copy", seed + number)
        ends[found.partition(":")[0] or "refused"] += 1
        if found:
            complaints.append(f"{number}: {case.wrong}: {found}")
            print(complaints[-1], flush=True)
    return ends, complaints


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ends, complaints = run(options.lines, options.seed, Path(folder))
    print(", ".join(f"{count} {end}" for end, count in ends.most_common()))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(_main())
