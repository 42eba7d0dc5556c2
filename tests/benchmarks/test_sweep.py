"""What the pages claim of any network is what the sweep found, and nothing of it is wrong."""

import csv
import json

import pytest

from utils.benchmarks import sweep
from utils.benchmarks.sweep import COLLECTIONS, GAPS, SAME, STORED, claim, main, sweep_text
from utils.paper.pages import read_block


@pytest.fixture(scope="module")
def stored():
    return json.loads(STORED.read_text())


def test_the_pages_hold_what_the_sweep_found(stored):
    assert read_block("any_network") == claim(stored)
    assert read_block("sweep") == sweep_text(stored)


def test_no_network_is_wrong_and_nearly_all_are_smaller(stored):
    verdicts = [row["verdict"] for row in stored["rows"]]
    assert set(verdicts) <= {"ok", "refused"} and verdicts.count("ok") >= 95
    for row in stored["rows"]:
        if row["verdict"] == "ok":
            assert max(row[gap] for gap in GAPS) < SAME
            assert row["one_left"] < 99.9


def test_every_network_is_in_one_collection(stored):
    names = [row["network"] for row in stored["rows"]]
    assert len(set(names)) == len(names)
    assert {name.partition("/")[0] for name in names} == set(COLLECTIONS)


ROW = {
    "network": "timm/resnet18",
    "verdict": "ok",
    "error": "",
    "trace_s": "0.2",
    "one_left": "40.0",
    "one_macs_left": "30.0",
    "sums_left": "26.0",
    "sums_macs_left": "25.0",
    **dict.fromkeys(GAPS, "1e-16"),
}
OTHER = {
    "network": "timm/resnet18",
    "tp_ok": "True",
    "tp_params_left": "25.0",
    "tp_macs_left": "24.0",
    "tp_vs_masked": "0.5",
}


def taken_in(tmp_path, monkeypatch, *rows, others=(OTHER,)):
    """What is written into the blocks for rows of a sweep."""
    blocks = {}
    monkeypatch.setattr(sweep, "STORED", tmp_path / "sweep.json")
    monkeypatch.setattr(sweep, "REASONS", {})
    monkeypatch.setattr(sweep, "write_block", blocks.__setitem__)
    for name, content in {"ours.csv": rows, "theirs.csv": others}.items():
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, content[0].keys())
            writer.writeheader()
            writer.writerows(content)
    paths = [str(tmp_path / name) for name in ("ours.csv", "theirs.csv")]
    main([paths[0], "--beside", paths[1], "--commit", "0123456789ab"])
    return blocks


def test_a_sweep_is_taken_in_and_told(tmp_path, monkeypatch):
    refused = {
        **dict.fromkeys(ROW, ""),
        "network": "smp/PAN",
        "verdict": "refused",
        "error": "ValueError: no.",
    }
    blocks = taken_in(tmp_path, monkeypatch, ROW, refused)
    told = " ".join(blocks["any_network"].split())
    assert "Of 2 networks of five libraries 1 come out smaller, none wrong" in told
    assert "Refused: PAN. Torch-Pruning 1.6.1 runs 1 of 1; 1 of 1 compared" in told
    assert "- refused: smp/PAN: no." in blocks["sweep"]
    assert "; commit 0123456789ab." in blocks["sweep"]
    (line,) = [x for x in blocks["sweep"].splitlines() if x.startswith("| timm, conv")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == [
        *("1", "1", "0", "0", "26.0%", "25.0%", "0.20 s"),
        *("1 of 1", "0 of 1", "25.0%", "26.0%"),
    ]


def test_a_network_that_keeps_more_needs_a_reason(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="REASONS: expected those of .'timm/resnet18'., got ..$"):
        taken_in(tmp_path, monkeypatch, {**ROW, "sums_left": "28.0"})


def test_bad_words_are_one_sentence(capsys):
    whole = ["x.csv", "--beside", "y.csv", "--commit", "z"]
    for words in ([], ["--render", *whole], whole[:1], whole[:3]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "expected SWEEP.csv --beside OTHER.csv --commit" in capsys.readouterr().err
