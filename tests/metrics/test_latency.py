"""Laws of latency: order statistics, turns, and a network left as it was."""

import os

import pytest
import torch
from torch import nn

from utils.metrics.latency import Latency, compare_latency, using_threads

BATCH = torch.zeros(4, 3, 8, 8)


class Recorder(nn.Module):
    """Notes its name in a shared list whenever it is called, and whether it is in eval mode."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, x):
        self.calls.append((self.name, self.training))
        return x


def test_percentiles_are_in_order_and_the_setting_is_told():
    latency = compare_latency({"a": nn.Conv2d(3, 4, 3)}, BATCH, repeats=5, warmup=1)["a"]
    assert 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms
    assert (latency.batch_size, latency.device) == (4, "cpu")
    assert latency.threads == torch.get_num_threads()


def test_networks_are_timed_in_turns_and_each_goes_first():
    calls = []
    models = {name: Recorder(name, calls) for name in "abc"}
    found = compare_latency(models, BATCH, repeats=3, warmup=1)
    names = [name for name, _ in calls]
    rounds = [names[start : start + 3] for start in range(0, 12, 3)]
    assert len(names) == 12 and all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert {turn[0] for turn in rounds} == {"a", "b", "c"}
    assert list(found) == ["a", "b", "c"]


def test_networks_run_in_eval_mode_and_get_their_mode_back():
    calls = []
    model = Recorder("a", calls)
    compare_latency({"a": model}, BATCH, repeats=2, warmup=0)
    assert calls == [("a", False)] * 2 and model.training


@pytest.mark.parametrize(("repeats", "warmup"), [(0, 1), (3, -1)])
def test_impossible_numbers_of_passes_are_an_error(repeats, warmup):
    with pytest.raises(ValueError, match=f"got repeats={repeats}, warmup={warmup}"):
        compare_latency({"a": nn.Identity()}, BATCH, repeats=repeats, warmup=warmup)


def test_throughput_is_the_batch_by_the_median():
    latency = Latency(8.0, 7.0, 12.0, batch_size=100, threads=1, device="cpu")
    assert latency.images_per_second == 12_500


class Threads(nn.Module):
    """Notes how many threads compute."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(torch.get_num_threads())
        return x


@pytest.mark.skipif(os.cpu_count() < 2, reason="one CPU has but one thread")
@pytest.mark.parametrize(("count", "expected"), [(None, 1), (1, 1), (2, 2)])
def test_threads_are_borrowed(count, expected):
    model = Threads()
    with using_threads(count):
        latency = compare_latency({"a": model}, BATCH, repeats=1, warmup=0)["a"]
    assert (model.seen, latency.threads) == ([expected], expected)
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(os.cpu_count() < 2, reason="one CPU has but one thread")
def test_threads_come_back_after_an_error():
    with pytest.raises(RuntimeError, match="stop"), using_threads(2):
        raise RuntimeError("stop")
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("count", [0, os.cpu_count() + 1])
def test_threads_are_no_more_than_cpus(count):
    with (
        pytest.raises(ValueError, match=f"1 to {os.cpu_count()}, .* got {count}"),
        using_threads(count),
    ):
        pass
