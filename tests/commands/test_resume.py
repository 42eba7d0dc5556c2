"""A pruning run that is killed and started again ends as one that never stopped."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands.command_lines import files_in, json_of

SCHEDULES = {  # rates, epochs of a stage, stages, the lines of log.jsonl after which it is stopped
    "oneshot": ("[0.3]*7", 3, 1, 1),
    "layerwise": ("[0.3]*2+[0.]*4+[0.5]", 2, 3, 3),  # amid the second stage
}
FILES = {"config.json", "log.jsonl", "plan.json", "pruned.pt", "summary.json", "summary.md"}


def freeze_after(lines: int, log: Path, process: subprocess.Popen) -> None:
    """Freeze the process as soon as its log has so many lines."""
    while process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= lines:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            return
        time.sleep(0.005)
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_killed_and_resumed_is_never_stopped(call, begin, job, tmp_path, monkeypatch, schedule):
    rates, epochs, stages, lines = SCHEDULES[schedule]
    words = ["prune", *job.pruning, "--compress_rate", rates, "--epochs", str(epochs)]
    words += ["--schedule", schedule, "--job_dir", "job"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    unbroken, process = (begin(["main.py", *words], folder) for folder in (whole, broken))
    monkeypatch.chdir(broken)
    freeze_after(lines, Path("job/log.jsonl"), process)
    before = files_in(broken)
    in_use = f"job is in use by another run (process {process.pid})"
    assert_refused(call("main.py", *words), in_use)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    other_option = "job was started with lr 0.01, not 0.5: give another --job_dir, or delete job"
    assert_refused(call("main.py", *words, "--lr", "0.5"), other_option)
    assert files_in(broken) == before
    assert "job/pruned.pt" not in before, "the run was over, so the rest proves nothing"
    resumed, expected = json_of(begin(["main.py", *words], broken)), json_of(unbroken)
    assert resumed["accuracy"] == expected["accuracy"]
    found, expected = files_in(broken / "job"), files_in(whole / "job")
    for name in ("log.jsonl", "plan.json", "pruned.pt", "checkpoints/best.pt"):
        assert found[name] == expected[name], name
    assert len(expected["log.jsonl"].splitlines()) == epochs * stages
    assert {name for name in found if "/" not in name and "tfevents" not in name} == FILES


def assert_refused(outcome, expected: str) -> None:
    assert (outcome.code, outcome.out) == (2, "")
    assert expected in outcome.err
