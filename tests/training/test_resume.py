"""A run stopped at any moment and called again ends, bit for bit, where an unbroken run ends."""

import contextlib
import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.training import tiny_run
from tests.training.tiny_run import RECIPE, STAGES, tiny_network
from utils.runs.checkpoint import load_file
from utils.runs.job_folder import JobFolder
from utils.runs.log import RunLog, read_log
from utils.training import stage as stage_module
from utils.training.loop import fit
from utils.training.stage import read_progress


class Stopped(Exception):
    """What a test raises in place of a kill."""


def assert_same_end(path: Path, unbroken: Path):
    folder, expected = JobFolder(path), JobFolder(unbroken)
    assert folder.log.read_bytes() == expected.log.read_bytes()
    assert folder.best.read_bytes() == expected.best.read_bytes()
    assert_equal(load_file(folder.last), load_file(expected.last))
    assert_equal(load_file(path / "outcome.pt"), load_file(unbroken / "outcome.pt"))


def assert_equal(value, expected):
    assert type(value) is type(expected)
    if isinstance(value, torch.Tensor):
        assert torch.equal(value, expected)
    elif isinstance(value, dict):
        assert list(value) == list(expected)
        for key in value:
            assert_equal(value[key], expected[key])
    else:
        assert value == expected


@pytest.fixture
def events(monkeypatch):
    """Count the writes of a run, and stop it before the one whose number is put in `stop_at`."""
    counter = {"seen": 0, "stop_at": None}

    def counted(function):
        def call(*args, **kwargs):
            if counter["seen"] == counter["stop_at"]:
                raise Stopped
            counter["seen"] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(stage_module, "write_tensors", counted(stage_module.write_tensors))
    monkeypatch.setattr(RunLog, "epoch", counted(RunLog.epoch))
    monkeypatch.setattr(RunLog, "scalars", counted(lambda *_: None))
    monkeypatch.setattr(tiny_run, "write_tensors", counted(tiny_run.write_tensors))
    return counter


def test_a_stop_before_any_write_leaves_no_trace(tmp_path, events):
    tiny_run.tiny_run(tmp_path / "unbroken")
    writes = events["seen"]
    assert writes > 3 * len(STAGES) * RECIPE.epochs
    for number in range(writes):
        path = tmp_path / str(number)
        events.update(seen=0, stop_at=number)
        with pytest.raises(Stopped):
            tiny_run.tiny_run(path)
        events.update(stop_at=None)
        tiny_run.tiny_run(path)
        assert_same_end(path, tmp_path / "unbroken")


def test_many_stops_of_one_run_leave_no_trace(tmp_path, events):
    tiny_run.tiny_run(tmp_path / "unbroken")
    stops = 0
    while not (tmp_path / "stopped" / "outcome.pt").exists():
        events.update(seen=0, stop_at=4)  # enough for best.pt again, a line, curves and last.pt
        with contextlib.suppress(Stopped):
            tiny_run.tiny_run(tmp_path / "stopped")
        stops += 1
    assert stops > len(STAGES) * RECIPE.epochs / 2
    assert_same_end(tmp_path / "stopped", tmp_path / "unbroken")


def test_a_killed_run_ends_as_an_unbroken_one(tmp_path):
    assert run_in_a_process(tmp_path / "unbroken") == 0
    chance, kills = random.Random(0), 0
    while run_in_a_process(tmp_path / "killed", chance.uniform(0, 0.04)) == -signal.SIGKILL:
        kills += 1
    assert kills >= 2
    assert_same_end(tmp_path / "killed", tmp_path / "unbroken")


def run_in_a_process(path: Path, seconds: float | None = None) -> int:
    """Return the exit code of a run, killed `seconds` after it has written a line to its log."""
    context = multiprocessing.get_context("forkserver")  # imports once for all processes
    context.set_forkserver_preload(["torch._dynamo", "torch.utils.tensorboard", "tqdm"])
    process = context.Process(target=tiny_run.tiny_run, args=(path,))
    size = size_of_log(path)
    process.start()
    if seconds is not None:
        while process.is_alive() and size_of_log(path) <= size:
            time.sleep(0.001)
        process.join(seconds)
        process.kill()
    process.join()
    return process.exitcode


def size_of_log(path: Path) -> int:
    log = JobFolder(path).log
    return log.stat().st_size if log.exists() else 0


def test_a_finished_run_called_again_trains_nothing(tmp_path, monkeypatch):
    (*_, first) = tiny_run.tiny_run(tmp_path)
    monkeypatch.setattr(tiny_run, "tiny_batches", None)
    (again,) = tiny_run.tiny_run(tmp_path)
    assert (again.last, again.best, again.epochs) == (first.last, first.best, first.epochs)
    progress = read_progress(JobFolder(tmp_path))
    assert (progress.stage, progress.epoch, progress.finished) == (STAGES[1], 2, STAGES[:1])


def test_a_stage_that_is_behind_is_refused(tmp_path):
    tiny_run.tiny_run(tmp_path)
    before = JobFolder(tmp_path).last.read_bytes()
    with pytest.raises(ValueError, match="stage 'conv 01' is over in .*which is in 'conv 02'"):
        fit(
            tiny_network(),
            batches_of=tiny_run.tiny_batches,
            steps=4,
            recipe=RECIPE,
            evaluate=tiny_run.tiny_accuracy,
            select_on="val",
            checkpoints=JobFolder(tmp_path),
            stage=STAGES[0],
        )
    assert JobFolder(tmp_path).last.read_bytes() == before


def test_a_last_checkpoint_of_someone_else_is_named(tmp_path):
    folder = JobFolder(tmp_path)
    folder.last.parent.mkdir()
    torch.save({"state_dict": tiny_network().state_dict()}, folder.last)
    with pytest.raises(ValueError, match=r"last\.pt is no checkpoint of a run"):
        read_progress(folder)


def test_the_history_is_kept_once(tmp_path):
    (*_, result) = tiny_run.tiny_run(tmp_path)
    folder = JobFolder(tmp_path)
    assert read_log(folder.log)[-len(result.epochs) :] == result.epochs
    assert load_file(folder.last)["records"] == result.epochs
    assert set(load_file(folder.best)) == {"state_dict", "stage", "epoch", "accuracy"}
