"""Laws of latency tables: blocks are found, cells are timed once, and times are those of layers."""

import re

import pytest
import torch
from torch import nn

from utils.metrics.latency_table import measure_table, padded_macs, sum_error
from utils.metrics.layer_shapes import layer_shapes
from utils.metrics.runtimes import Runtime

IMAGE = torch.zeros(1, 3, 8, 8)


class Clock(Runtime):
    """A runtime that computes in full blocks, and depthwise convs of odd widths at length."""

    name = "clock"

    def __init__(self, block, stop_after=None):
        self.block, self.stop_after, self.timed = block, stop_after, []

    def prepare(self, model, batch):
        raise NotImplementedError

    def layers_ms(self, layers, images):
        raise NotImplementedError

    def layer_ms(self, shape, batch_size, device):
        if len(self.timed) == self.stop_after:
            raise KeyboardInterrupt
        self.timed.append(shape)
        return self.ms(shape, batch_size)

    def ms(self, shape, batch_size):
        reads, writes = (
            -(-width // self.block) * self.block if width > self.block else -(-width // 4) * 4
            for width in (shape.reads, shape.writes)
        )
        each = writes * 5 if shape.depthwise else 7 + reads * (3 + writes)
        return batch_size * each * (3 if shape.depthwise and shape.reads % 4 else 1)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.Conv2d(64, 128, 1),
        nn.Flatten(),
        nn.Linear(128 * 64, 10),
    )


@pytest.fixture
def shapes():
    return layer_shapes(network(), IMAGE)


@pytest.mark.parametrize("block", [8, 16, 32])
def test_the_block_is_found_and_times_are_those_of_layers(block, shapes, tmp_path):
    clock = Clock(block)
    table = measure_table(clock, shapes.values(), 2, tmp_path / "table.json")
    assert (table.block, table.uneven) == (block, 3)
    conv, depthwise = shapes["2"], shapes["1"]
    for reads in (*range(4, block, 4), 40, 64):
        assert table.layer_ms(depthwise, reads, reads) == clock.ms(depthwise.at(reads, reads), 2)
        for writes in (3, block, block + 1, 100, 128):
            expected = clock.ms(conv.at(reads, writes), 2)
            assert table.layer_ms(conv, reads, writes) == pytest.approx(expected)
    assert table.layer_ms(depthwise, 63, 63) == clock.ms(depthwise.at(63, 63), 2)


def test_the_sum_is_that_of_all_layers(shapes, tmp_path):
    clock = Clock(16)
    table = measure_table(clock, shapes.values(), 2, tmp_path / "table.json")
    whole = sum(clock.ms(shape, 2) for shape in shapes.values())
    assert table.sum_ms(shapes.values()) == whole
    assert sum_error(table, shapes, whole / 1.25) == pytest.approx(0.25)


def test_a_table_that_was_stopped_goes_on_and_ends_as_if_it_never_was(shapes, tmp_path):
    whole = measure_table(Clock(16), shapes.values(), 2, tmp_path / "whole.json")
    with pytest.raises(KeyboardInterrupt):
        measure_table(Clock(16, stop_after=50), shapes.values(), 2, tmp_path / "table.json")
    clock = Clock(16)
    assert measure_table(clock, shapes.values(), 2, tmp_path / "table.json") == whole
    assert 0 < len(clock.timed) < len(whole.cells)
    again = Clock(16)
    assert measure_table(again, shapes.values(), 2, tmp_path / "table.json") == whole
    assert again.timed == []


def test_a_table_of_another_setting_is_begun_anew(shapes, tmp_path):
    measure_table(Clock(16), shapes.values(), 2, tmp_path / "table.json")
    clock = Clock(16)
    table = measure_table(clock, shapes.values(), 4, tmp_path / "table.json")
    assert table.cells.keys() <= {f"{s.kind()}: {s.reads} > {s.writes}" for s in clock.timed}
    assert table.measured_on["batch_size"] == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "holds a list of 1: expected a latency table, an object"),
        ("{", "is not JSON"),
        ('{"measured_on": {}, "block": 8, "uneven": 1}', "lacks 'cells': expected a latency table"),
        (
            '{"measured_on": {}, "block": 8, "uneven": 1, "cells": {"x": -1}}',
            "'cells.x' is -1, expected a number, at least 0",
        ),
    ],
)
def test_a_file_that_is_no_table_is_named(shapes, tmp_path, content, message):
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"table\.json:? {re.escape(message)}"):
        measure_table(Clock(16), shapes.values(), 2, path)
    assert path.read_text() == content


def test_padded_macs_are_those_of_the_next_full_blocks():
    model = nn.Sequential(nn.Conv2d(3, 17, 1), nn.Conv2d(17, 17, 1, groups=17), nn.Conv2d(17, 8, 1))
    shapes = layer_shapes(model, IMAGE)
    assert padded_macs(shapes, 1) == 64 * (3 * 17 + 17 + 17 * 8)
    assert padded_macs(shapes, 16) == 64 * (3 * 32 + 32 + 32 * 16)
