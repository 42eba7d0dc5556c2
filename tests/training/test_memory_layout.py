"""Channels last on a CPU: chosen by timed steps, once, and kept for as long as the run lasts."""

import itertools
import json

import pytest
import torch

from tests.training.tiny_run import tiny_accuracy, tiny_batches, tiny_network
from utils.runs.checkpoint import load_file
from utils.runs.job_folder import JobFolder
from utils.training import memory_layout
from utils.training.loop import fit
from utils.training.schedules import Recipe
from utils.training.steps import TrainingStep

RECIPE = Recipe(epochs=2, lr=0.1, seed=1)


def fitted(folder, *, evaluate=tiny_accuracy, recipe=RECIPE):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    model = tiny_network()
    how = {"batches_of": tiny_batches, "steps": 1000, "evaluate": evaluate, "select_on": "last"}
    fit(model, recipe=recipe, checkpoints=JobFolder(folder), **how)
    return model


@pytest.fixture
def clock(monkeypatch):
    """Make any training worth the question; steps in the layout of that name take 1 s, not 2."""

    def set_fast(fast):
        def ms(step, batch):
            step(*batch)
            last = step._memory_format == torch.channels_last
            return 1000 if last == (fast == "on") else 2000

        monkeypatch.setattr(memory_layout, "_ms", ms)

    return set_fast


@pytest.fixture
def layouts(monkeypatch):
    """The layouts of the steps that train, in order."""
    seen, make = [], TrainingStep.__init__

    def init(self, model, optimizer, recipe, **how):
        make(self, model, optimizer, recipe, **how)
        seen.append(recipe.channels_last)

    monkeypatch.setattr(TrainingStep, "__init__", init)
    return seen


@pytest.mark.parametrize("fast", ["on", "off"])
def test_the_faster_layout_is_taken_and_kept(tmp_path, clock, layouts, fast):
    clock(fast)
    model = fitted(tmp_path)
    assert layouts[-1] == fast
    kept = json.loads((tmp_path / "channels_last.json").read_text())
    assert kept["channels_last"] == fast and kept[f"{fast}_ms"] == 1000
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_timing_changes_no_number(tmp_path, clock):
    clock("off")
    asked = fitted(tmp_path / "asked")
    off = fitted(tmp_path / "off", recipe=Recipe(epochs=2, lr=0.1, seed=1, channels_last="off"))
    for name, value in off.state_dict().items():
        assert torch.equal(value, asked.state_dict()[name]), name


class Killed(Exception):
    """What stops a run here."""


def test_a_run_that_is_taken_up_ends_bit_for_bit_as_one_never_stopped(tmp_path, clock):
    clock("on")
    fitted(tmp_path / "whole")
    calls = itertools.count()

    def killed_in_the_second_epoch(model):
        if next(calls) == 1:
            raise Killed
        return tiny_accuracy(model)

    with pytest.raises(Killed):
        fitted(tmp_path / "job", evaluate=killed_in_the_second_epoch)
    clock("off")  # now it would be the other one
    fitted(tmp_path / "job")
    for name in ("last", "best"):
        found, expected = (
            load_file(tmp_path / folder / "checkpoints" / f"{name}.pt")["state_dict"]
            for folder in ("job", "whole")
        )
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_short_trainings_and_runs_from_before_are_not_asked_for(tmp_path, clock, layouts):
    fitted(tmp_path / "short")  # by the real clock it is over in no time
    assert layouts[-1] == "off" and not (tmp_path / "short" / "channels_last.json").exists()
    clock("on")
    fitted(tmp_path / "short", recipe=Recipe(epochs=3, lr=0.1, seed=1))
    assert layouts[-1] == "off"
