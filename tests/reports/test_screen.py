"""What `prune` says at the end fits the screen, and says whether anything was fine-tuned."""

import copy
import json

import pytest

from utils.paper.measured_runs import FOLDER
from utils.reports import screen
from utils.reports.screen import prune_screen, scan_screen, weights_screen, zeros_screen

RUN = FOLDER / "resnet_56" / "original_rank_0" / "summary.json"


@pytest.fixture
def summary():
    """The summary of a finished run of a network of 55 convs."""
    return json.loads(RUN.read_text()) | {"init": "pruned", "budget": None}


def told(summary):
    """The lines below the layers: {name: text}."""
    lines = prune_screen(summary).partition("\n\n")[2].splitlines()
    return {line[:11].strip(): line[12:] for line in lines}


def test_the_end_is_ten_lines_of_a_hundred_columns(summary):
    last = prune_screen(summary).partition("\n\n")[2].splitlines()
    assert len(last) == 10 and max(map(len, last[:-3])) <= 100  # then come paths, to be copied
    found = told(summary)
    assert found["MACs"].startswith(
        "125.49M -> 41.08M (-67.3%); by the paper's rule 125.49M -> 62.72M"
    )
    assert found["top-1"].startswith(
        "93.39% dense -> 12.54% pruned -> 91.18% fine-tuned (90.6 to 91.7"
    )
    assert found["paper"].startswith("row 50.0%: 62.72M MACs") and "top-1 93.17%" in found["paper"]
    assert found["file"] == "result/resnet_56/original_rank_0/pruned.pt, 1.47 MB"


def test_what_was_not_fine_tuned_is_not_set_beside_the_paper(summary):
    states = copy.deepcopy(summary["accuracy"])
    summary["accuracy"] = {name: states[name] for name in ("dense", "pruned")}
    found = told(summary)
    assert found["top-1"].endswith("not fine-tuned (--epochs 0)")
    assert found["top-1"].startswith("93.39% dense -> 12.54% pruned (11.9 to 13.2")
    assert "top-1" not in found["paper"]


def test_layers_are_cut_to_the_terminal(summary, monkeypatch):
    summary["layers"][3]["reason"] = "kept: " + 50 * "long "
    for columns in (60, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        header, *layers = prune_screen(summary).partition("\n\n")[0].splitlines()
        assert len(layers) == 55 and max(map(len, layers)) == columns
        assert header.split()[:4] == ["conv", "rate", "filters", "inputs"]
        assert layers[3].endswith("...")


def test_rates_that_a_target_found_are_whole(summary):
    summary["budget"] = {"measure": "macs"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.reports.screen.budget_line", lambda _: "target: half")
        assert told(summary)["rates"] == summary["compress_rate"]
        assert told(summary)["target"] == "half"


def test_a_dry_run_has_neither_accuracy_nor_files(summary):
    kept = ("arch", "criterion", "init", "budget", "compress_rate", "layers", "paper")
    planned = {name: summary[name] for name in (*kept, "paper_rule", "physical")}
    found = told(planned)
    assert set(found) == {"network", "rates", "MACs", "parameters", "paper", "next"}


@pytest.mark.parametrize(
    ("end", "following"),
    [(weights_screen, "evaluate --sparse --resume F"), (zeros_screen, "export --resume F")],
)
def test_other_prunings_end_with_files_and_what_may_follow(end, following, monkeypatch):
    for name in ("weights_markdown", "zeros_markdown"):
        monkeypatch.setattr(screen, name, lambda summary: "the tables\n")
    summary = {"arch": "my_net.py:MyNet", "job_dir": "J", "pruned_file": "F"}
    summary["pruned_file_bytes"] = 20_000
    summary["options"] = {"dataset": "folder", "data_dir": "my data", "normalization": "cifar10"}
    assert end(summary).splitlines() == [
        "the tables",
        "",
        "file        F, 0.02 MB",
        "more        J/summary.md",
        f"next        python main.py {following} --arch my_net.py:MyNet --dataset folder "
        "--data_dir 'my data'",
    ]
    assert "same command without --dry_run" in end({"arch": "resnet_8"}).splitlines()[-1]


def test_a_scan_ends_with_the_pruning_that_takes_it(monkeypatch):
    monkeypatch.setattr(screen, "scan_markdown", lambda summary: "the tables\n")
    summary = {"job_dir": "J", "options": {"granularity": "filter", "criterion": "l1"}}
    more, following = scan_screen(summary).splitlines()[-2:]
    assert more.startswith("more        J/scan.csv, J/summary.md; tensorboard --logdir J")
    assert "prune --target_macs 0.5 --allocation sensitivity --scan J" in following
