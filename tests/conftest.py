"""What tests share: one torch thread, and a tiny job of images, a baseline and its ranks."""

import contextlib
import errno
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import main
import rank_generation
from tests.command_lines import quicken, start

torch.set_num_threads(1)  # tensors are tiny, and waking a second thread costs more

DOORS = {"main.py": main.main, "rank_generation.py": rank_generation.main}


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that is all of standard output."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


@dataclass(frozen=True)
class Job:
    """A trained and ranked resnet_8: the words that name it, and what its two commands printed."""

    data: list[str]
    checkpoint: Path
    ranks: Path
    trained: dict[str, Any]
    ranked: dict[str, Any]

    @property
    def network(self) -> list[str]:
        """The words that name data and checkpoint."""
        return [*self.data, "--resume", str(self.checkpoint)]

    @property
    def pruning(self) -> list[str]:
        """The words that `prune` needs beside its rates and folder; fine-tuning in an instant."""
        return [
            *self.network,
            *("--rank_conv", str(self.ranks)),
            *("--epochs", "1", "--train_batch_size", "16"),
        ]


def printed_by(door: str, *words: str) -> dict[str, Any]:
    """The JSON object that a door prints which is called in this process."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert DOORS[door](list(words)) == 0
    return json.loads(printed.getvalue())


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Commands write below the working directory; a test that asks for threads gives them back."""
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def call(capfd):
    """A function that runs a door in this process: `call("main.py", "evaluate", ...)`."""

    def run(door: str, *words: str) -> Outcome:
        capfd.readouterr()
        try:
            code = DOORS[door](list(words))
        except SystemExit as stop:  # argparse's own way to end
            code = stop.code
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture
def quick(monkeypatch):
    """Let `prune` neither time networks nor draw pictures, which takes most of a tiny run."""
    quicken(monkeypatch.setattr)


@pytest.fixture
def disk_takes(monkeypatch):
    """A function: `disk_takes(n)`, and after n more files the disk is full."""
    sync, left = os.fsync, []

    def fill(descriptor: int) -> None:
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left.pop()
        sync(descriptor)

    def takes(files: int) -> None:
        left[:] = [None] * files
        monkeypatch.setattr(os, "fsync", fill)

    return takes


@pytest.fixture
def begin():
    """A function that starts a door as a process; what still runs after the test is killed."""
    processes: list[Popen] = []

    def run(words: list[str], cwd: Path) -> Popen:
        processes.append(start(words, cwd))
        return processes[-1]

    yield run
    for process in processes:
        with process:
            process.kill()


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """A folder of 60 train and 20 test images of two classes: reddish and greenish noise."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in {"train": 30, "test": 10}.items():
        for channel, name in enumerate(("red", "green")):
            place = folder / split / name
            place.mkdir(parents=True)
            pixels = random.integers(0, 256, (count, 32, 32, 3))
            pixels[..., channel] = 100 + pixels[..., channel] // 2
            for number, image in enumerate(pixels.astype(np.uint8)):
                Image.fromarray(image).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def job(images, tmp_path_factory) -> Job:
    """The baseline and the ranks that two commands made, in the folders of their choice."""
    cwd = tmp_path_factory.mktemp("job")
    data = ["--arch", "resnet_8", "--dataset", "folder", "--data_dir", str(images)]
    data += ["--device", "cpu", "--json"]
    recipe = ["--epochs", "3", "--lr", "0.05", "--train_batch_size", "16"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)  # no --resume: the ranking finds the baseline by itself
        trained = printed_by("main.py", "train", *data, *recipe)
        ranked = printed_by("rank_generation.py", *data, "--num_images", "20")
    checkpoint = cwd / "result" / "resnet_8" / "baseline" / "checkpoints" / "best.pt"
    return Job(data, checkpoint, cwd / "rank_conv" / "resnet_8", trained, ranked)
