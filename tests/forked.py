"""A door in a process forked off a server that has imported everything: it starts in an instant."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from unittest import mock

import torch

import main
from tests.command_lines import LONGEST_SECONDS, ROOT
from utils.runs.log import RunLog
from utils.training.steps import TrainingStep


def fork(words: list[str], folder: Path, prepare: Callable[..., None], *args) -> ForkServerProcess:
    """Start `main.py words` in `folder`, where its `err` goes; first call prepare(*args) in it."""
    process = server().Process(target=_run, args=(words, folder, prepare, *args))
    process.start()
    return process


def server() -> ForkServerContext:
    """Return the server, started, that every test process of this worker is forked off."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    with mock.patch.dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    return context


def fork_frozen(words: list[str], folder: Path) -> ForkServerProcess:
    """Start `main.py words`; return it frozen, when it has written a line to its log."""
    process = fork(words, folder, _freeze_after_a_line)
    while process.is_alive() and not (folder / "frozen").exists():  # and it ends in its time
        time.sleep(0.005)
    assert process.is_alive(), (folder / "err").read_text()
    return process


def signal_in_step(number: int, wanted: int) -> None:
    """Let this process send itself a signal amid a step of its training, counted from 1."""
    steps = iter(range(1, 10**6))

    def call(*args):
        if next(steps) == wanted:
            signal.raise_signal(number)
        return whole_step(*args)

    whole_step, TrainingStep.__call__ = TrainingStep.__call__, call


def _freeze_after_a_line() -> None:
    def write(*args) -> None:
        write_line(*args)
        Path("frozen").touch()
        signal.pause()

    write_line, RunLog.epoch = RunLog.epoch, write


def _run(words: list[str], folder: Path, prepare: Callable[..., None], *args) -> None:
    os.setpgrp()  # its workers are those of its group
    signal.alarm(LONGEST_SECONDS)  # who waits for one that hangs goes on
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    with Path("err").open("w") as errors:
        os.dup2(errors.fileno(), 2)
        os.dup2(errors.fileno(), 1)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was not forked
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    prepare(*args)
    sys.exit(main.main(words))
