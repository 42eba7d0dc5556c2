"""`prune`, killed at moments of all kinds and started again, ends where an unbroken run ends."""

import io
import os
import random
import signal
from pathlib import Path

import pytest
import torch

import utils.commands.prune
from tests.command_lines import files_in, quicken
from tests.forked import fork
from utils.runs.checkpoint import load_file
from utils.training.steps import TrainingStep

SCHEDULES = {  # rates, epochs of a stage, stages
    "oneshot": ("[0.3]*7", 3, 1),
    "layerwise": ("[0.3]+[0.]*5+[0.5]", 2, 2),
    "iterative": ("[0.3]*7", 2, 2),
}
KILLS = 10  # of each schedule
SAME = ("log.jsonl", "plan.json", "config.json", "pruned.pt", "checkpoints/best.pt")


def kill_at(moment: int | None) -> None:
    """Let this process kill itself at so many moments from now: in steps and in writes."""
    moments = iter(range(10**6))

    def pass_moment() -> None:
        if next(moments) == moment:
            signal.raise_signal(signal.SIGKILL)

    def around(function):
        def call(*args, **kwargs):
            pass_moment()
            result = function(*args, **kwargs)
            pass_moment()
            return result

        return call

    def save(value, file) -> None:
        content = io.BytesIO()
        save_whole(value, content)
        half = len(content.getbuffer()) // 2
        file.write(content.getbuffer()[:half])
        file.flush()
        pass_moment()
        file.write(content.getbuffer()[half:])

    save_whole, torch.save = torch.save, save
    os.fsync, Path.replace = around(os.fsync), around(Path.replace)
    TrainingStep._update = around(TrainingStep._update)
    quicken()
    utils.commands.prune.summary_markdown = lambda _: ""  # asks for more than a stand-in has


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_killed_at_ten_moments_a_run_ends_as_if_it_never_was(job, tmp_path, schedule):
    rates, epochs, stages = SCHEDULES[schedule]
    words = ["prune", *job.pruning, "--compress_rate", rates, "--epochs", str(epochs)]
    words += ["--schedule", schedule, "--job_dir", "job"]
    words += ["--steps", "2"] if schedule == "iterative" else []
    assert exit_code(words, tmp_path / "whole", None) == 0
    whole = tmp_path / "whole" / "job"
    chance, kills, done = random.Random(schedule), 0, 0
    for _ in range(3 * KILLS):
        moment = chance.randrange(50) if kills < KILLS else None
        code = exit_code(words, tmp_path / f"broken {done}", moment)
        if code == 0:
            done += 1
        else:
            assert code == -signal.SIGKILL, (tmp_path / f"broken {done}/err").read_text()
            kills += 1
        if code == 0 and kills == KILLS:
            break
    assert kills == KILLS
    for folder in tmp_path.glob("broken *"):
        assert_same_end(folder / "job", whole)
    assert len(files_in(whole)["log.jsonl"].splitlines()) == epochs * stages


def exit_code(words: list[str], folder: Path, moment: int | None) -> int:
    process = fork(words, folder, kill_at, moment)
    process.join()
    return process.exitcode


def assert_same_end(job: Path, whole: Path) -> None:
    found, expected = files_in(job), files_in(whole)
    for name in SAME:
        assert found[name] == expected[name], name
    found, expected = (load_file(path / "checkpoints" / "last.pt") for path in (job, whole))
    for name, weight in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], weight), name
    assert found["records"] == expected["records"]
    assert not list(job.rglob("*.unfinished"))
