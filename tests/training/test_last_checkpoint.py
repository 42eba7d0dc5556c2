"""A last.pt of which anything is missing or of another kind is refused whole, and named."""

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.command_lines import files_in
from tests.training import tiny_run
from utils.runs.checkpoint import load_file
from utils.runs.job_folder import JobFolder
from utils.runs.stop_signals import Stopped, stops_raised

MAY_BE_ABSENT = r"num_batches_tracked'|'state', \d\)$"  # as in networks of others; before a step


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The folder of a run that was stopped amid its second epoch."""
    folder, batches_of = tmp_path_factory.mktemp("stopped"), tiny_run.tiny_batches

    def batches(epoch: int, start: int = 0):
        for number, batch in enumerate(batches_of(epoch, start)):
            if (epoch, number) == (1, 2):
                signal.raise_signal(signal.SIGTERM)  # SIGINT is ignored in the background
            yield batch

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped), stops_raised():
        patch.setattr(tiny_run, "tiny_batches", batches)
        tiny_run.tiny_run(folder)
    return folder


def places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Yield where values stand in each other; of equal ones in a list, the first."""
    if place:
        yield place
    parts = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list | tuple):
        parts = enumerate(value[:1])
    for name, part in parts:
        yield from places(part, (*place, name))


def spoilt(content: dict, place: tuple, kind: str) -> dict:
    *way, last = place
    inner = content
    for name in way:
        inner = inner[name]
    if kind == "missing":
        del inner[last]
    else:
        inner[last] = 7.5 if isinstance(inner[last], str) else "nonsense"
    return content


@pytest.mark.parametrize("kind", ["missing", "of another type"])
def test_whatever_is_missing_or_of_another_type_is_refused_and_nothing_is_written(
    stopped, tmp_path, kind
):
    taken, refused = [], 0
    for number, place in enumerate(places(load_file(JobFolder(stopped).last))):
        folder = tmp_path / str(number)
        shutil.copytree(stopped, folder)
        job = JobFolder(folder)
        torch.save(spoilt(load_file(job.last), place, kind), job.last)
        before = files_in(folder)
        try:
            tiny_run.tiny_run(folder)
        except ValueError as error:
            assert "last.pt" in str(error), (place, error)
            assert "\n" not in str(error)
            assert files_in(folder) == before, place
            refused += 1
        else:
            if kind != "missing" or not re.search(MAY_BE_ABSENT, str(place)):
                taken.append(place)
    assert refused > 50
    assert not taken, "\n".join(map(str, taken))


def test_a_run_whose_last_checkpoint_is_gone_does_not_begin_again(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    job = JobFolder(tmp_path / "run")
    job.last.unlink()
    job.log.write_text(job.log.read_text() * 2)
    before = files_in(job.path)
    with pytest.raises(ValueError, match=r"last\.pt is missing, and .*log\.jsonl has 2 lines"):
        tiny_run.tiny_run(job.path)
    assert files_in(job.path) == before


def test_a_log_deleted_while_the_run_goes_on_is_written_again(tmp_path, monkeypatch):
    tiny_run.tiny_run(tmp_path / "whole")
    batches_of, job = tiny_run.tiny_batches, JobFolder(tmp_path / "run")

    def batches(epoch: int, start: int = 0):
        if epoch == 2:
            job.log.unlink()
        return batches_of(epoch, start)

    monkeypatch.setattr(tiny_run, "tiny_batches", batches)
    tiny_run.tiny_run(job.path)
    assert job.log.read_bytes() == JobFolder(tmp_path / "whole").log.read_bytes()
