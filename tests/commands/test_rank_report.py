"""`rank_generation.py --report`: the same rank files, and numbers that follow from the ranks."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.command_lines import files_in, json_of, start
from utils.commands.rank_report import report_rates
from utils.options.networks import outline
from utils.paper import pages
from utils.paper.pages import read_block
from utils.planning.rank_choices import RankedImages, study_ranks
from utils.rank.rank_study import mean_ranks
from utils.reports import rank_findings
from utils.reports.rank_findings import STORED

RATES = "[0.25]+[0.5]*5+[0.]"
REPORT = ("--num_images", "20", "--report", "--report_images", "10,40", "--compress_rate", RATES)
FIGURES = {"mean_ranks.png", "noise.png", "cuts.png", "choices.png"}
TABLES = {"summary.json", "summary.md", "layers.csv", "filters.csv"}


@pytest.fixture(scope="module")
def reported(job, tmp_path_factory):
    """What a process with `--report` printed, and the folder of its rank files."""
    cwd = tmp_path_factory.mktemp("reported")
    words = ["rank_generation.py", *job.network, *REPORT, "--output", "ranks"]
    return json_of(start(words, cwd)), cwd / "ranks"


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_report_leaves_the_rank_files_as_they_are(reported, job):
    found, ranks = reported
    files = files_in(ranks)
    without = {name: data for name, data in files_in(job.ranks).items() if name.endswith(".npy")}
    assert {name: files[name] for name in without} == without
    assert found["layers"] == job.ranked["layers"]
    said = [json.loads(data["manifest.json"]) for data in (files, files_in(job.ranks))]
    assert said[0].pop("checkpoint").endswith(said[1].pop("checkpoint"))
    assert said[0] == said[1]


def test_a_report_is_of_the_ranks_and_the_filters_that_pruning_keeps(reported, job, call):
    found, ranks = reported
    folder = ranks / "report"
    summary, layers = (
        json.loads((folder / "summary.json").read_text()),
        rows_of(folder / "layers.csv"),
    )
    assert found["report"] == {"folder": "ranks/report", **summary["overall"]}
    words = (*job.network, "--rank_conv", str(ranks), "--compress_rate", RATES, "--dry_run")
    pruned = call("main.py", *words).json["layers"]
    filters = rows_of(folder / "filters.csv")
    for number, (layer, plan) in enumerate(zip(summary["layers"], pruned, strict=True), start=1):
        mine = [row for row in filters if row["conv"] == layer["conv"]]
        assert [int(r["filter"]) for r in mine if r["kept"] == "1"] == plan["kept"]
        scores = np.array([float(row["mean_rank"]) for row in mine])
        assert (scores.astype(np.float32) == np.load(ranks / f"rank_conv{number}.npy")).all()
        assert (layer["cut"] is None) == (plan["rate"] == 0)
        assert layer["cut"] is None or layer["cut"]["tied"] == plan["tied_at_cut"]
        assert layers[number - 1]["common_draws"] == str(layer["common"]["draws"])
    assert summary["environment"]["command"] and summary["checkpoint_sha256"]
    assert summary["overall"]["layers_cut"] == 6


def test_the_overall_numbers_add_up(reported):
    overall, layers = (
        json.loads((reported[1] / "report" / "summary.json").read_text())[name]
        for name in ("overall", "layers")
    )
    cut = [layer for layer in layers if layer["cut"]]
    assert overall["kept"] == 12 + 2 * 8 + 2 * 16 + 32
    assert overall["filters"] == 16 + 2 * 16 + 2 * 32 + 64
    assert overall["common"].keys() == {"10", "draws", "augmentation"}
    for name, share in overall["common"].items():
        common = sum(layer["common"][name] * layer["kept"] for layer in cut)
        assert share == pytest.approx(common / overall["kept"], abs=1e-4)
        assert overall["least_common"][name]["share"] == min(r["common"][name] for r in cut)
    assert overall["cuts"].keys() == {"10", "20", "40"}
    mine = overall["cuts"]["20"]
    assert mine["undecided"] == sum(layer["cut"]["undecided"] for layer in cut)
    assert mine["inside_noise"] == sum(layer["cut"]["inside_noise"] for layer in cut)
    assert mine["tied"] == sum(layer["cut"]["tied"] for layer in cut)
    kinds = overall["kinds"].values()
    for name in ("layers_cut", "filters", "kept"):
        assert sum(kind[name] for kind in kinds) == overall[name]
    for name in mine:
        assert sum(kind[name] for kind in kinds) == mine[name]


@pytest.mark.parametrize(("rank", "kind"), [(4, "near_full_rank"), (3, "below")])
def test_layers_of_nearly_full_rank_are_counted_apart(rank, kind):
    overall = study(torch.full((12, 2), rank, dtype=torch.int16))["overall"]
    assert overall["kinds"].keys() == {kind}
    assert overall["kinds"][kind]["tied"] == 1


LAYER = {"conv": "conv", "map_size": [4, 5]}


def ranked_images(ranks):
    """One layer of these ranks [N, C], augmentation changing nothing; 4 images for the files."""
    return RankedImages({"conv": ranks}, {"conv": mean_ranks(ranks[:4])}, 4)


def study(ranks, rate=0.5):
    return study_ranks(ranked_images(ranks), {"conv": rate}, [LAYER], [2, 12])


def test_images_that_agree_leave_nothing_undecided():
    ranks = torch.tensor([3, 1, 4, 2], dtype=torch.int16).expand(12, -1)
    overall = study(ranks)["overall"]
    assert set(overall["common"].values()) == set(overall["order"].values()) == {1.0}
    nothing = {"inside_noise": 0, "tied": 0, "undecided": 0}
    assert overall["cuts"] == {"2": nothing, "4": nothing, "12": nothing}
    assert (overall["standard_error"], overall["common_by_chance"]) == (0, 0.5)


def test_draws_that_contradict_one_another_have_what_they_share_counted():
    low_first, low_last = [1, 2, 3, 4], [4, 3, 2, 1]
    ranks = torch.tensor([low_first] * 8 + [low_last] * 4, dtype=torch.int16)
    found = study(ranks)
    # of the three pairs of draws one keeps the same two filters of four, two keep none in common
    assert found["overall"]["common"]["draws"] == pytest.approx(1 / 3, abs=1e-5)
    assert found["overall"]["order"]["draws"] == pytest.approx((1 - 1 - 1) / 3, abs=1e-5)
    assert found["layers"][0]["common"]["2"] == 1  # eight of the twelve say the same


def test_a_network_that_loses_nothing_has_no_cuts():
    found = study(torch.ones(12, 3, dtype=torch.int16), rate=0.0)
    assert found["layers"][0]["cut"] is None
    assert found["overall"]["layers_cut"] == 0
    assert found["overall"]["order"]["draws"] is None
    assert set(found["overall"]["common"].values()) == {1.0}


def test_figures_are_drawn(reported):
    pytest.importorskip("matplotlib")
    folder = reported[1] / "report"
    assert files_in(folder).keys() == FIGURES | TABLES
    for name in FIGURES:
        with Image.open(folder / name) as image:
            assert image.width == 1350 and len(set(image.convert("L").tobytes())) > 20


def test_without_matplotlib_tables_are_written_and_a_hint_is_given(call, job, monkeypatch):
    for name in [*(name for name in sys.modules if name.startswith("matplotlib")), "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    words = [word for word in job.network if word != "--json"]
    outcome = call("rank_generation.py", *words, *REPORT, "--output", "ranks")
    assert outcome.code == 0, outcome.err
    assert "no figures: matplotlib is not installed (pip install matplotlib)" in outcome.err
    assert outcome.out.endswith("report: ranks/report/\n")
    assert files_in(Path("ranks/report")).keys() == TABLES


def test_without_rates_those_of_the_official_readme_are_judged():
    resnet, googlenet = outline("resnet_110"), outline("googlenet")
    assert report_rates(resnet, "").text() == "[0.1]+[0.4]*108"
    assert report_rates(googlenet, "").values == (0.1, *[0.8] * 5, 0.85, *[0.8] * 3)
    assert report_rates(resnet, "[0.2]*109").values == (0.2,) * 109


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--compress_rate", ""], "--compress_rate is missing: .* none are published for resnet_8"),
        (["--compress_rate", "[0.5]*6"], "6 rates for resnet_8, expected 7"),
        (["--report_images", "1,20"], "--report_images is '1,20': expected numbers of at least 2"),
        (["--report_images", ""], "--report_images is '': expected numbers of at least 2"),
        (["--report_images", "20,61"], r"61 images to rank on and to report on \(see .*the 60 of"),
        (["--num_images", "21"], r"63 images to rank on and to report on \(see .*the 60 of"),
        (["--num_images", "1"], "--report on 1 image: expected at least 2"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(call, job, tmp_path, words, expected):
    shutil.copytree(job.ranks, "ranks")
    before = files_in(tmp_path)
    outcome = call("rank_generation.py", *job.network, *REPORT, "--output", "ranks", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert re.search(expected, outcome.err.splitlines()[-1]), outcome.err
    assert files_in(tmp_path) == before


def test_the_page_holds_the_findings_that_are_stored():
    summaries = json.loads(STORED.read_text())
    assert read_block("ranks") == rank_findings.stored_text()
    assert [summary["sites"] for summary in summaries] == ["official", "conv"]


def test_findings_are_stored_without_their_layers(reported, tmp_path, monkeypatch):
    readme, stored = tmp_path / "README.md", tmp_path / "stored.json"
    readme.write_text("before\n<!-- ranks: begin -->\nold\n<!-- ranks: end -->\nafter\n")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(rank_findings, "STORED", stored)
    path = reported[1] / "report" / "summary.json"
    rank_findings.main([str(path)])
    summary = json.loads(path.read_text())
    summary.pop("layers")
    assert json.loads(stored.read_text()) == [summary]
    block = f"<!-- ranks: begin -->\n{rank_findings.findings(summary)}\n<!-- ranks: end -->"
    for words in ([str(path)], []):
        rank_findings.main(words)
        assert readme.read_text() == f"before\n{block}\nafter\n"


def test_rates_without_a_report_have_nothing_to_do(call, job):
    words = (*job.network, "--num_images", "5", "--compress_rate", "[0.5]", "--output", "ranks")
    assert "--compress_rate has nothing to do here" in call("rank_generation.py", *words).err
