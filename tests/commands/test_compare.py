"""`compare`: every published row, its verdict, what is left of the network, and finished runs."""

import json
from pathlib import Path

import pytest

from tests.reference import REFERENCE, needs_reference, reference
from utils.commands.compare import compare_command
from utils.options.compare_options import CompareConfig
from utils.paper.compare import EXACT, NEEDS_RANKS, NO_RATES
from utils.paper.pages import read_block
from utils.paper.tables import published_rows
from utils.reports.compare_table import compare_text

RANKS = REFERENCE / "hrank_rank_conv"
MEASURED = Path(__file__).parents[2] / "utils/paper/measured/resnet_56/original_rank_0/summary.json"


@pytest.fixture(scope="module")
def found():
    """All rows, with the published ranks where they are at hand."""
    return compare_command(CompareConfig(rank_conv=RANKS))


@needs_reference
def test_exactly_the_rows_that_are_exact_are_called_so(found):
    verdicts = {
        (row["publication"], row["arch"], row["row"]): row["verdict"] == EXACT
        for row in found["rows"]
    }
    expected = {
        (row["table"].split()[0], row["arch"], row["row"].replace("base", "baseline")): row[
            "exact_row"
        ]
        for row in reference("flops.json")["published"]
    }
    assert verdicts == expected


@needs_reference
def test_what_is_left_is_what_the_official_masks_leave(found):
    compacted = {
        (row["arch"], row["compress_rate"]): row["d_compacted"]["stable_argsort"]
        for row in reference("flops.json")["hrank_strings"]
        if "d_compacted" in row
    }
    compared = 0
    for row in found["rows"]:
        expected = compacted.get((row["arch"], row["compress_rate"]))
        if row["publication"] == "HRank" and expected:
            counted = {"macs": expected["macs"], "parameters": expected["params"]}
            assert row["physical"] == counted, row["row"]
            compared += 1
    assert compared == 10


def test_every_row_is_there_with_a_reason_where_it_is_not_exact(found):
    names = [(row["publication"], row["arch"], row["row"]) for row in found["rows"]]
    assert names == [(row.publication, row.arch, row.row) for row in published_rows()]
    for row in found["rows"]:
        assert row["verdict"] == EXACT or row["note"], row["row"]
        assert (row["verdict"] == NO_RATES) == (row["compress_rate"] is None)


def test_the_text_has_a_line_for_every_row_and_a_note_for_every_number(found):
    text = compare_text(found)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == len(found["rows"]) + 2
    assert max(map(len, lines)) <= 120
    for row in found["rows"]:
        assert row["note"] is None or row["note"] in text


@needs_reference
def test_the_page_holds_the_tables(found):
    assert read_block("compare") == compare_text(found)


def test_without_ranks_what_hrank_leaves_is_not_known(tmp_path):
    rows = compare_command(CompareConfig(arch="resnet_56", rank_conv=tmp_path))["rows"]
    physical = {(row["publication"], row["row"]): row["physical"] for row in rows}
    assert physical["HRank", "50.0%"] == NEEDS_RANKS
    assert physical["HRank", "29.3%"] is None
    dense = {"macs": 125_485_696, "parameters": 853_018}
    assert physical["HRank", "baseline"] == physical["HRankPlus", "baseline"] == dense
    assert physical["HRankPlus", "28.0%"]["macs"] == 89_460_352


def summary_in(folder, **changes):
    summary = json.loads(MEASURED.read_text()) | changes
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_runs_stand_beside_their_rows(tmp_path, call):
    ours = summary_in(tmp_path / "ours")
    unpublished = summary_in(tmp_path / "other", compress_rate="[0.5]*55")
    words = ["--arch", "mobilenet_v2", "--job_dir", f"{ours},{unpublished}"]
    found = call("main.py", "compare", *words, "--json").json
    first, second = found["jobs"]
    assert first["paper"]["row"] == "50.0%" and first["paper"]["verdict"] == EXACT
    assert first["paper"]["top1_percent"]["published"] == "93.17"
    assert first["accuracy"]["correct"] == 9118
    assert first["physical"] == {"macs": 41_078_546, "parameters": 336_768}
    assert second["paper"] is None
    text = call("main.py", "compare", *words).out
    assert "9118 of 10000 right" in text and "Row 50.0% of resnet_56" in text
    assert text.strip().endswith("Nothing was published for these rates.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no summary.json: expected the folder of a finished run of `prune`"),
        ("{", "summary.json is not JSON"),
        ("{}", "summary.json lacks 'arch': expected the summary of a run of `prune`"),
        ("[1]", "summary.json holds a list of 1: expected the summary of a run of `prune`"),
    ],
)
def test_a_folder_that_holds_no_run_is_one_sentence(tmp_path, call, content, message):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    outcome = call("main.py", "compare", "--job_dir", str(tmp_path))
    assert outcome.code == 2 and message in outcome.err and outcome.out == ""
    assert outcome.err.count("\n") == 1


def test_a_network_of_no_table_is_one_sentence(call):
    outcome = call("main.py", "compare", "--arch", "resnet_20")
    assert outcome.code == 2
    assert "nothing was published for arch 'resnet_20': expected one of vgg_16_bn," in outcome.err
