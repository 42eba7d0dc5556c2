"""The pages' table of torchvision networks is what was measured, and that is sound."""

import json

import pytest

from utils.benchmarks.networks_table import MEASURED, NETWORKS, build, main, measure, networks_table
from utils.paper.pages import read_block


@pytest.fixture(scope="module")
def measured():
    return json.loads(MEASURED.read_text())


def test_the_page_holds_the_table_of_the_measurements(measured):
    assert read_block("networks") == networks_table(measured)


def test_every_network_is_measured_both_ways(measured):
    rows = [(row["network"], row["across_sums"]) for row in measured["rows"]]
    assert rows == [(network, group) for network in NETWORKS for group in (False, True)]


def test_the_measurements_obey_the_law_and_shrink_the_networks(measured):
    for row in measured["rows"]:
        for logits in row["logits"].values():
            assert logits["largest_difference"] <= 1e-12 * logits["scale"], row["network"]
        for what in ("macs", "parameters"):
            assert row["pruned"][what] < 0.6 * row["dense"][what], row["network"]


def test_a_network_is_measured(monkeypatch):
    monkeypatch.setitem(NETWORKS, "squeezenet1_1", 32)
    alone, grouped = measure("squeezenet1_1")
    assert (alone["across_sums"], grouped["across_sums"]) == (False, True)
    assert alone["dense"]["parameters"] == 1_235_496
    assert alone["logits"]["eval"]["largest_difference"] < 1e-12
    assert alone["trace_seconds"] > 0


def test_main_prints_the_table_of_what_it_is_asked_for(monkeypatch, capsys):
    monkeypatch.setitem(NETWORKS, "squeezenet1_1", 32)
    main(["squeezenet1_1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| network ") and "torchvision" in lines[-1]
    assert [line.split("|")[1].strip() for line in lines[2:4]] == [
        "squeezenet1_1",
        "squeezenet1_1 `--group`",
    ]


def test_bad_input_is_one_sentence(capsys):
    with pytest.raises(ValueError, match="unknown network 'alexnet': expected one of resnet18,"):
        build("alexnet")
    for words, message in [
        (["alexnet"], "unknown network 'alexnet': expected one of"),
        (["--write", "resnet18"], "--write measures all networks: expected no names"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert message in capsys.readouterr().err
