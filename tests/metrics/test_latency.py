"""Laws of latency: order statistics, turns, and a network left as it was."""

import pytest
import torch
from torch import nn

from utils.metrics.latency import compare_latency, measure_latency

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
    latency = measure_latency(nn.Conv2d(3, 4, 3), BATCH, repeats=5, warmup=1)
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
    measure_latency(model, BATCH, repeats=2, warmup=0)
    assert calls == [("a", False)] * 2 and model.training


@pytest.mark.parametrize(("repeats", "warmup"), [(0, 1), (3, -1)])
def test_impossible_numbers_of_passes_are_an_error(repeats, warmup):
    with pytest.raises(ValueError, match=f"got repeats={repeats}, warmup={warmup}"):
        measure_latency(nn.Identity(), BATCH, repeats=repeats, warmup=warmup)
