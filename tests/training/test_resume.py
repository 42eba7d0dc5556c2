"""A run stopped at any moment and called again ends, bit for bit, where an unbroken run ends."""

import contextlib
import random
import shutil
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
from utils.runs.stop_signals import Stopped, stops_raised
from utils.training import stage as stage_module
from utils.training.loop import fit
from utils.training.stage import read_progress


class Crashed(Exception):
    """What a test raises in place of a kill."""


def assert_same_end(path: Path, unbroken: Path):
    folder, expected = JobFolder(path), JobFolder(unbroken)
    assert folder.log.read_bytes() == expected.log.read_bytes()
    assert folder.best.read_bytes() == expected.best.read_bytes()
    last, expected_last = load_file(folder.last), load_file(expected.last)
    assert last.pop("seconds") > 0 and expected_last.pop("seconds") > 0
    assert_equal(last, expected_last)
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
    """Count the writes of a run, and stop it before the one whose number is put in `stop_at`.

    Before each write, a folder put in `folder` is copied.
    """
    counter = {"seen": 0, "stop_at": None, "folder": None}

    def counted(function):
        def call(*args, **kwargs):
            if counter["seen"] == counter["stop_at"]:
                raise Crashed
            if counter["folder"] is not None:
                copy = counter["folder"].with_name(f"stopped {counter['seen']:03d}")
                shutil.copytree(counter["folder"], copy)
            counter["seen"] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(stage_module, "write_tensors", counted(stage_module.write_tensors))
    monkeypatch.setattr(RunLog, "epoch", counted(RunLog.epoch))
    monkeypatch.setattr(RunLog, "scalars", counted(lambda *_: None))
    monkeypatch.setattr(tiny_run, "write_tensors", counted(tiny_run.write_tensors))
    return counter


def test_a_stop_before_any_write_leaves_no_trace(tmp_path, events):
    """The folder as it is before each write is what a stop leaves; a run goes on from each."""
    events.update(folder=tmp_path / "unbroken")
    tiny_run.tiny_run(tmp_path / "unbroken")
    events.update(folder=None)
    stops = sorted(tmp_path.glob("stopped *"))
    assert len(stops) > 3 * len(STAGES) * RECIPE.epochs
    for path in stops:
        tiny_run.tiny_run(path)
        assert_same_end(path, tmp_path / "unbroken")


def test_many_stops_of_one_run_leave_no_trace(tmp_path, events):
    tiny_run.tiny_run(tmp_path / "unbroken")
    stops = 0
    while not (tmp_path / "stopped" / "outcome.pt").exists() and stops < 50:
        events.update(seen=0, stop_at=4)  # enough for best.pt again, a line, curves and last.pt
        with contextlib.suppress(Crashed):
            tiny_run.tiny_run(tmp_path / "stopped")
        stops += 1
    assert stops > len(STAGES) * RECIPE.epochs / 2
    assert_same_end(tmp_path / "stopped", tmp_path / "unbroken")


@pytest.fixture
def moments(monkeypatch):
    """Note the steps of a run; send a signal in the step or evaluation put in `stop_at`."""
    noted = {"seen": 0, "stop_at": None, "steps": [], "signals": [signal.SIGTERM]}
    tiny_batches, tiny_accuracy = tiny_run.tiny_batches, tiny_run.tiny_accuracy

    def count():
        noted["seen"] += 1
        if noted["seen"] - 1 == noted["stop_at"]:
            for number in noted["signals"]:
                signal.raise_signal(number)

    def batches(epoch, start):
        for step, batch in enumerate(tiny_batches(epoch, start), start):
            noted["steps"].append((epoch, step))
            count()
            yield batch

    def accuracy(model):
        count()
        return tiny_accuracy(model)

    monkeypatch.setattr(tiny_run, "tiny_batches", batches)
    monkeypatch.setattr(tiny_run, "tiny_accuracy", accuracy)
    return noted


def test_a_signal_is_saved_behind_the_step_and_leaves_no_trace(tmp_path, moments):
    tiny_run.tiny_run(tmp_path / "unbroken")
    steps, chance, calls = moments["steps"].copy(), random.Random(0), 0
    while not (tmp_path / "stopped" / "outcome.pt").exists() and calls < 100:
        moments.update(seen=0, stop_at=chance.choice([0, 1, 2]))
        with contextlib.suppress(Stopped), stops_raised():
            tiny_run.tiny_run(tmp_path / "stopped")
        calls += 1
    assert calls > len(STAGES) * RECIPE.epochs * (4 + 1) / 3
    assert moments["steps"] == steps + steps, "a step was made twice, or left out"
    assert_same_end(tmp_path / "stopped", tmp_path / "unbroken")


def test_a_stop_says_what_is_saved(tmp_path, moments):
    moments["stop_at"] = 5 + 2
    with pytest.raises(Stopped) as stop, stops_raised():
        tiny_run.tiny_run(tmp_path)
    outcome = "conv 01, epoch 2, step 3 is saved; the same command continues"
    assert (stop.value.signal, stop.value.outcome) == (signal.SIGTERM, outcome)
    assert read_progress(JobFolder(tmp_path)).epoch == 0
    moments["stop_at"] = None
    tiny_run.tiny_run(tmp_path)


def test_a_second_interrupt_amid_a_step_saves_nothing_and_leaves_no_trace(tmp_path, moments):
    tiny_run.tiny_run(tmp_path / "unbroken")
    moments.update(seen=0, stop_at=5 + 2, signals=[signal.SIGINT, signal.SIGINT])
    with pytest.raises(Stopped) as stop, stops_raised():
        tiny_run.tiny_run(tmp_path / "stopped")
    assert stop.value.outcome == "the same command continues from there"
    assert load_file(JobFolder(tmp_path / "stopped").last)["under_way"] is None
    moments.update(stop_at=None)
    tiny_run.tiny_run(tmp_path / "stopped")
    assert_same_end(tmp_path / "stopped", tmp_path / "unbroken")


def test_seconds_add_up_over_stages_and_calls(tmp_path, moments):
    moments["stop_at"] = 5 * RECIPE.epochs + 2  # in the second stage
    with pytest.raises(Stopped), stops_raised():
        tiny_run.tiny_run(tmp_path)
    before = load_file(JobFolder(tmp_path).last)["seconds"]
    started = time.perf_counter()
    (*_, result) = tiny_run.tiny_run(tmp_path)
    assert before < result.seconds < before + time.perf_counter() - started
    (*_, again) = tiny_run.tiny_run(tmp_path)
    assert again.seconds == result.seconds


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
    with pytest.raises(ValueError, match=r"last\.pt lacks 'optimizer': expected what a run saved"):
        read_progress(folder)


def test_the_history_is_kept_once(tmp_path):
    (*_, result) = tiny_run.tiny_run(tmp_path)
    folder = JobFolder(tmp_path)
    assert read_log(folder.log)[-len(result.epochs) :] == result.epochs
    assert load_file(folder.last)["records"] == result.epochs
    assert set(load_file(folder.best)) == {"state_dict", "stage", "epoch", "accuracy"}
