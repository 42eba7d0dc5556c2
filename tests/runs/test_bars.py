"""Bars are for who watches a terminal; a log gets none, but a line of each epoch."""

import io
import sys

import pytest
import torch

from tests.training.tiny_run import tiny_run
from utils.data.image_folder import load_image_folder
from utils.metrics.latency import compare_latency
from utils.runs import bars


class Terminal(io.StringIO):
    """A stream that says whether somebody watches it."""

    def __init__(self, watched: bool):
        super().__init__()
        self.watched = watched

    def isatty(self) -> bool:
        return self.watched


@pytest.fixture
def begun(monkeypatch):
    """A function that lets standard error be a terminal, or a log, and returns it."""

    def begin(watched: bool) -> Terminal:
        monkeypatch.setattr(bars, "_DELAY_SECONDS", 0)
        monkeypatch.setattr(sys, "stderr", Terminal(watched))
        return sys.stderr

    return begin


@pytest.mark.parametrize("watched", [True, False])
def test_decoding_and_timing_show_bars_in_a_terminal_alone(begun, watched, images):
    stderr = begun(watched)
    load_image_folder(images, 8)
    compare_latency({"one": torch.nn.Conv2d(3, 3, 3)}, torch.zeros(1, 3, 8, 8), 2)
    for name in (f"decoding {images.name} train", f"decoding {images.name} test", "timing"):
        assert (name in stderr.getvalue()) == watched
    assert watched or stderr.getvalue() == ""


@pytest.mark.parametrize("watched", [True, False])
def test_a_training_shows_bars_in_a_terminal_and_a_line_of_each_epoch_in_a_log(
    begun, watched, tmp_path
):
    stderr = begun(watched)
    tiny_run(tmp_path)
    lines = [line for line in stderr.getvalue().splitlines() if ": epoch " in line]
    assert ("\r" in stderr.getvalue()) == watched
    assert len(lines) == (0 if watched else 6)
