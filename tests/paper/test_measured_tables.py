"""The tables of the kept runs: who is ahead, how fast, and the finding in three sentences."""

import json

import pytest

from tests.paper.made_up_runs import write_run
from utils.metrics.intervals import difference_interval_percent
from utils.paper.measured_runs import grouped, read_runs
from utils.paper.measured_tables import finding_text, results_text


@pytest.fixture
def folder(tmp_path):
    """One run each by rank, by L1 norm, at random, from scratch and with nothing removed."""
    for name, correct in (("rank", 8000), ("l1", 8300), ("random", 8010)):
        write_run(tmp_path, name, correct=correct, criterion=name)
    write_run(tmp_path, "scratch", correct=6000, criterion="l1", init="scratch")
    write_run(tmp_path, "unpruned", correct=8900, removed=False)
    return tmp_path


def rows_of(text):
    """The cells of the table rows in a text, by their first cell."""
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_rows_are_set_beside_l1_and_random(folder):
    groups = grouped(read_runs(folder))
    rows = rows_of(results_text(groups))
    header = next(iter(rows.values()))
    assert header[-2:] == ["to l1", "to random"]
    by_name = {group.first.treatment: group for group in groups}
    ranks, l1 = (by_name[name].first.tuned for name in ("rank", "l1"))
    low, high = difference_interval_percent(ranks, l1)
    found = rows[by_name["rank"].label]
    assert found[-2] == f"**-3.00** ({low:+.2f} to {high:+.2f} over images)"
    assert found[-1].startswith("-0.10 (") and rows[by_name["l1"].label][-2] == ""
    order = [group.first.treatment for group in groups if group.label in list(rows)]
    assert len(order) == 5 and list(rows)[1] == by_name["nothing removed"].label


def test_latencies_of_an_idle_machine_are_shown(folder):
    for name, dense_ms in (("rank", 12.0), ("l1", 8.0)):
        pruned = {"checkpoint": f"result/resnet_20/{name}/pruned.pt"}
        timed = [{"batch_size": 1, "median_ms": dense_ms}]
        found = {"latency": timed, "against": pruned | {"latency": [timed[0] | {"median_ms": 8.0}]}}
        (folder / "resnet_20" / name / "latency.json").write_text(json.dumps(found))
    rows = rows_of(results_text(grouped(read_runs(folder))))
    header = list(rows.values())[0]
    column = header.index("time, 1 image")
    found = {name.split(" (")[0]: cells[column] for name, cells in list(rows.items())[1:]}
    assert (found["rank"], found["l1"], found["random"]) == ("1.50 x", "1.00 x", "")


def test_the_finding_is_three_sentences_and_six_rows_at_most(folder):
    write_run(folder, "fpgm", correct=8200, criterion="fpgm")
    text, table, _ = finding_text(grouped(read_runs(folder))).split("\n\n")
    assert text.replace("\n", " ") == (
        "**The finding.** A `resnet_20` was pruned at equal compress rates by several criteria, "
        "each fine-tuned for 2 epochs on 50,000 images of photos. Rank ends 3.00 points behind L1 "
        "norm and 0.10 points behind random filters, which is within the noise. The paper has no "
        "row for it."
    )
    names = [name.split(" (")[0] for name in rows_of(table)]
    expected = ["nothing removed", "l1", "random", "rank", "l1 from scratch"]
    assert names == ["removed by", *expected]


def test_without_a_comparison_there_is_no_finding(tmp_path):
    write_run(tmp_path, "rank", correct=8000)
    write_run(tmp_path, "l1", correct=8000, criterion="l1", epochs=9)
    assert finding_text(grouped(read_runs(tmp_path))) == ""
