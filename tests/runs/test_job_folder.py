"""A run's folder belongs to one run at a time, and to one set of options for good."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from utils.runs.job_folder import JobFolder, open_job

HOLDER = """
import os, sys, time
from utils.runs.job_folder import open_job
with open_job(sys.argv[1], {"lr": 0.1}):
    worker = os.fork()
    if worker:
        print(worker, flush=True)
    time.sleep(60)
"""


def test_the_names_of_the_files():
    folder = JobFolder("result/x")
    names = [folder.config, folder.log, folder.plan, folder.last, folder.best, folder.pruned]
    names += [folder.summary_json, folder.summary_markdown, folder.lock]
    assert [str(name.relative_to("result/x")) for name in names] == [
        "config.json",
        "log.jsonl",
        "plan.json",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
        "pruned.pt",
        "summary.json",
        "summary.md",
        ".lock",
    ]


def test_the_options_are_written_once_and_kept(tmp_path):
    config = {"lr": 0.1, "decay_epochs": (5, 10)}
    with open_job(tmp_path / "a" / "b", config) as folder:
        assert json.loads(folder.config.read_text()) == {"lr": 0.1, "decay_epochs": [5, 10]}
    before = folder.config.stat().st_mtime_ns
    with open_job(tmp_path / "a" / "b", config) as again:
        assert again == folder and folder.config.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"lr": 0.2, "arch": "x"}, "lr 0.1, not 0.2"),
        ({"lr": 0.1}, 'arch "x", not absent'),
        ({"lr": 0.1, "arch": "x", "seed": 1}, "seed absent, not 1"),
    ],
)
def test_other_options_are_refused_with_both_ways_out(tmp_path, config, words):
    with open_job(tmp_path, {"lr": 0.1, "arch": "x"}):
        pass
    expected = f"was started with {words}: give another --job_dir, or delete {tmp_path}"
    with pytest.raises(ValueError, match=re.escape(expected)), open_job(tmp_path, config):
        pass


def test_a_second_run_is_refused_until_the_first_ends(tmp_path):
    with open_job(tmp_path, {}):
        busy = rf"{tmp_path} is in use by another run \(process {os.getpid()}\)"
        for _ in range(2):
            with pytest.raises(ValueError, match=busy), open_job(tmp_path, {}):
                pass
    with open_job(tmp_path, {}):
        pass


def test_a_killed_run_frees_its_folder_though_a_worker_lives(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as holder:
        try:
            worker = int(holder.stdout.readline())
            with pytest.raises(ValueError, match=f"process {holder.pid}"):
                open_job(tmp_path, {"lr": 0.1}).__enter__()
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
        with open_job(tmp_path, {"lr": 0.1}):
            os.kill(worker, signal.SIGKILL)


def test_a_run_clears_what_a_killed_one_left_half_written(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.pt.123.unfinished").touch()
    with open_job(tmp_path, {}) as folder:
        assert not list(folder.last.parent.iterdir())


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot use .*file as the run's folder"):
        open_job(tmp_path / "file", {}).__enter__()


def test_a_broken_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        open_job(tmp_path, {}).__enter__()
