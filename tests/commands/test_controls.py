"""An experiment: the runs of its grid, what is done again when it was stopped, and what it says."""

import json
import multiprocessing
import re
import sys
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch

import utils.commands.prune
import utils.planning.finetune
from tests.command_lines import files_in, quicken
from utils.metrics.accuracy import Accuracy
from utils.options.controls_options import EXPERIMENTS, ControlsConfig
from utils.paper.pages import read_block
from utils.reports.controls_figures import bars, draw_controls
from utils.reports.controls_summary import controls_summary, csv_rows, excludes_zero
from utils.reports.controls_table import controls_markdown, stored_summaries, stored_text
from utils.runs.choices import CRITERIA

GRID = ["--criteria", "rank,random", "--rates", "0.5", "--epochs", "1", "--num_images", "20"]
GRID += ["--train_batch_size", "16", "--lr", "0.05", "--job_dir", "grid"]


@pytest.fixture
def experiment(call, job, quick, monkeypatch):
    """A function that calls the experiment with further words and returns the outcome."""
    monkeypatch.setattr("utils.commands.controls.draw_controls", lambda *_: None)

    def run(*words):
        return call("main.py", "compare", "--experiment", "controls", *job.network, *GRID, *words)

    return run


def outcomes(cells):
    """The runs of seed 0 without what depends on the call or on the clock."""
    passing = ("seconds_of_finetuning", "command")
    return [{k: cell[k] for k in cell if k not in passing} for cell in cells if cell["seed"] == 0]


def test_a_grid_in_pieces_is_the_unbroken_grid(experiment, monkeypatch):
    unbroken = experiment("--seeds", "0").json["cells"]
    Path("grid").rename("unbroken")
    fit, calls = utils.planning.finetune.fit, []

    def stop_at_the_third(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("the machine fell over")
        return fit(*args, **kwargs)

    monkeypatch.setattr(utils.planning.finetune, "fit", stop_at_the_third)
    assert experiment("--seeds", "0,1").code == 2 and len(calls) == 3
    assert experiment("--seeds", "0").code == 0 and len(calls) == 5  # what is there stays
    whole = experiment("--seeds", "0,1").json
    assert len(calls) == 9 and len(whole["cells"]) == 8
    assert outcomes(whole["cells"]) == outcomes(unbroken)
    assert_means_by_hand(whole)
    for cell in whole["cells"]:
        assert_is_of_its_run(cell)

    grid, before = Path("grid"), files_in(Path("grid"))
    assert json.loads(before["summary.json"]) == whole
    assert before["controls.csv"].count(b"\n") == 1 + 8
    assert experiment("--seeds", "0,1").json["rows"] == whole["rows"]
    assert len(calls) == 9 and files_in(grid).keys() == before.keys()
    changed = experiment("--seeds", "0", "--lr", "0.5")
    assert changed.code == 2
    assert "grid was started with lr 0.05, not 0.5: give another --job_dir" in changed.err


def quick_prune(run):
    """Prune in a process of its own, where what `quick` does is not done."""
    quicken()
    return utils.commands.prune.prune_command(run)


def test_runs_side_by_side_are_the_runs_one_after_the_other(experiment, monkeypatch):
    words = ("--criteria", "random", "--seeds", "0")
    one_by_one = experiment(*words).json
    Path("grid").rename("one by one")
    monkeypatch.setattr("utils.commands.controls.prune_command", quick_prune)
    spoilt = Path("grid/random_scratch_0.5_0/config.json")
    spoilt.parent.mkdir(parents=True)
    spoilt.write_text('{"command": "train"}')
    refused = experiment(*words, "--jobs", "2")
    assert refused.code == 2
    assert refused.err.count("error:") == 1 and "Traceback" not in refused.err
    expected = r"compare: error: random_scratch_0.5_0: grid.* was started with command \"train\""
    assert re.search(expected, refused.err.splitlines()[-1]), refused.err
    assert not multiprocessing.active_children()
    spoilt.unlink()
    found = experiment(*words, "--jobs", "2")  # and is the same experiment
    assert outcomes(found.json["cells"]) == outcomes(one_by_one["cells"])
    assert "finished random_scratch_0.5_0; " in found.err and "run 1 of 2" not in found.err
    assert experiment(*words, "--jobs", "2").json["rows"] == one_by_one["rows"]


def assert_is_of_its_run(cell):
    name = "_".join(str(cell[what]) for what in ("criterion", "init", "level", "seed"))
    run = json.loads((Path("grid") / name / "summary.json").read_text())
    for what in ("criterion", "init", "seed"):
        assert cell[what] == run["options"][what]
    ranks = "grid/rank_conv" if cell["criterion"] == "rank" else None
    assert run["options"]["rank_conv"] == ranks
    assert cell["before"] == run["accuracy"]["pruned"]["test"]
    assert cell["after"] == run["accuracy"]["finetuned_last"]["test"]
    assert cell["macs"] == run["physical"]["pruned"]["macs"] < cell["dense"]["macs"]


def assert_means_by_hand(summary):
    top1 = {
        (cell["criterion"], cell["init"], cell["seed"]): cell["after"]["top1_percent"]
        for cell in summary["cells"]
    }
    for row in summary["rows"]:
        name = row["criterion"]
        after, scratch = (
            [top1[name, init, seed] for seed in (0, 1)] for init in ("pruned", "scratch")
        )
        assert row["after"]["mean"] == pytest.approx(sum(after) / 2)
        assert row["scratch"]["mean"] == pytest.approx(sum(scratch) / 2)
        assert row["minus_scratch"]["mean"] == pytest.approx(sum(after) / 2 - sum(scratch) / 2)
        assert row["after"]["pooled"]["images"] == 40
        assert row["after"]["pooled"]["correct"] == round(sum(after) * 20 / 100)


def cell(criterion, init, seed, right, *, before=100, level="0.5", macs=10_000_000):
    """A run by hand: `right` of 1000 images after training."""
    return {
        "criterion": criterion,
        "init": init,
        "level": level,
        "seed": seed,
        "compress_rate": f"[{level}]*7",
        "macs": macs,
        "parameters": 1_000_000,
        "dense": {
            "macs": 40_000_000,
            "parameters": 2_000_000,
            "accuracy": Accuracy(950, 1000, 0.1).as_dict(),
        },
        "before": Accuracy(before, 1000, 2.0).as_dict(),
        "after": Accuracy(right, 1000, 0.5).as_dict(),
        "seconds_of_finetuning": 60.0,
    }


BY_HAND = {
    ("rank", "pruned"): (800, 810, 820),
    ("rank", "scratch"): (500, 510, 490),
    ("l1", "pruned"): (811, 821, 831),
    ("l1", "scratch"): (700, 900, 820),
    ("random", "pruned"): (790, 700, 905),
    ("random", "scratch"): (795, 705, 910),
}
CELLS = [
    cell(criterion, init, seed, right)
    for (criterion, init), found in BY_HAND.items()
    for seed, right in enumerate(found)
]


def described(summary):
    """The summary with the rest that the text and the figure name."""
    options = {"epochs": 3, "seeds": [0, 1, 2], "lr": 0.01, "lr_schedule": "cosine"}
    made = {"command": "main.py", "device": "cpu", "threads": 1, "torch": "2", "commit": "abc"}
    words = {"arch": "net", "experiment": "controls", "dataset": "images", "train_images": 7}
    options |= {"select_on": "last"}
    return {**summary, **words, "options": options, "environment": made}


def test_means_differences_and_intervals_are_those_by_hand():
    summary = controls_summary(CELLS, "random")
    rank, l1, random = summary["rows"]
    assert [row["criterion"] for row in summary["rows"]] == ["rank", "l1", "random"]
    assert (rank["after"]["mean"], rank["after"]["deviation"]) == pytest.approx((81.0, 1.0))
    half = 4.302653 / sqrt(3)  # Student's t of two degrees of freedom
    assert rank["after"]["interval"] == pytest.approx([81 - half, 81 + half], abs=1e-5)
    pooled = rank["after"]["pooled"]
    assert (pooled["correct"], pooled["images"]) == (2430, 3000)
    assert pooled["interval_percent"] == list(Accuracy(2430, 3000, 0).interval_percent())
    assert rank["minus_scratch"]["mean"] == pytest.approx(31.0)
    pairs = [80.0 - 79.0, 81.0 - 70.0, 82.0 - 90.5]
    assert rank["minus_control"]["mean"] == pytest.approx(mean(pairs))
    assert rank["minus_control"]["deviation"] == pytest.approx(stdev(pairs))
    assert not excludes_zero(rank["minus_control"]) and excludes_zero(rank["minus_scratch"])
    assert random["minus_control"] is None and rank["before_minus_control"]["mean"] == 0
    (finding,) = summary["findings"]
    assert finding["best"] == "l1"
    assert [lead["over"] for lead in finding["leads"]] == ["rank", "random"]
    over_rank = finding["leads"][0]  # 1.1 points with each seed
    assert over_rank["mean"] == pytest.approx(1.1) and excludes_zero(over_rank)
    assert (finding["above_scratch"], finding["below_scratch"]) == (["rank"], ["random"])
    text = controls_markdown(described(summary))
    assert "`l1` has the best mean after fine-tuning, 82.10%: +1.10 points (95% interval " in text
    assert "+1.10 to +1.10, which excludes 0) over `rank`; +2.27 points (95% interval " in text
    assert ", which includes 0) over `random`. Against" in text
    assert "(the interval is above 0) for `rank`, lower (it is below 0) for `random`." in text
    rows = csv_rows(CELLS)
    assert len(rows) == 18 and rows[0]["correct_after"] == 800 and rows[0]["correct_dense"] == 950


def test_one_seed_has_no_interval_and_levels_stand_alone():
    cells = [
        cell(criterion, "pruned", 4, right, level=level, macs=macs)
        for level, macs in (("0.1", 30), ("0.2", 20))
        for criterion, right in (("first", 600 if macs == 20 else 640), ("input_norm", 630))
    ]
    summary = controls_summary(cells, "first")
    assert [finding["best"] for finding in summary["findings"]] == ["first", "input_norm"]
    assert summary["rows"][3]["minus_control"] == {
        "mean": pytest.approx(3.0),
        "deviation": None,
        "interval": None,
    }
    assert summary["findings"][1]["above_scratch"] is None
    text = controls_markdown(described(summary))
    assert "63.00%: +3.00 points (one seed: no interval) over `first`." in text
    assert "scratch" not in text.split("Top-1 in percent")[0]
    assert bars([row for row in summary["rows"] if row["level"] == "0.2"]) == {
        "input_norm": {"after": (63.0, 0.0), "before": (pytest.approx(10.0), 0.0)},
        "first": {"after": (60.0, 0.0), "before": (pytest.approx(10.0), 0.0)},
    }


def test_the_figure_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    draw_controls(tmp_path / "controls.png", described(controls_summary(CELLS, "random")))
    with Image.open(tmp_path / "controls.png") as image:
        assert image.width == 1350 and len(set(image.convert("L").tobytes())) > 20


def test_without_matplotlib_a_hint_is_given(tmp_path, monkeypatch, capfd):
    for name in [*(name for name in sys.modules if name.startswith("matplotlib")), "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    draw_controls(tmp_path / "controls.png", described(controls_summary(CELLS, "random")))
    assert "matplotlib is not installed (pip install matplotlib)" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_name_criteria_that_there_are(name):
    config = ControlsConfig(arch="resnet_20", experiment=name)
    runs = list(config.runs(Path("grid"), checkpoint=None, ranks=Path("ranks")))
    plan = EXPERIMENTS[name]
    assert set(plan.criteria) <= set(CRITERIA) and plan.control in plan.criteria
    assert len(runs) == 3 * len(plan.criteria) * len(plan.inits) * len(plan.rates)
    assert len({run.job_dir for _, run in runs}) == len(runs)
    assert {run.epochs for _, run in runs} == {config.epochs}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--criteria", "l1,l7"], r"--criteria is \('l1', 'l7'\): expected some of rank, "),
        (["--criteria", "l1,l1"], r"--criteria is .* each once"),
        (["--seeds", "1,1"], r"--seeds is \(1, 1\): expected numbers, each once"),
        (["--seeds", ""], r"--seeds is empty: expected at least one"),
        (["--rates", "0.5,1"], r"compress rate, term 1 .* expected \[rate\]"),
        (["--jobs", "0"], r"--jobs is 0: expected at least 1"),
        (["--epochs", "0"], r"--epochs is 0: expected at least 1"),
        (["--untrained"], r"--untrained with --experiment: expected a trained checkpoint"),
        (["--rates", "0.5", "--compress_rate", "[0.5]*7"], r"--compress_rate with --rates"),
    ],
)
def test_bad_input_is_one_sentence(call, job, words, message):
    outcome = call("main.py", "compare", "--experiment=controls", *job.network, *words)
    assert outcome.code == 2
    assert re.search(message, outcome.err.splitlines()[-1]), outcome.err


def test_runs_on_a_gpu_are_made_one_by_one(experiment, monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr("utils.commands.controls.open_device", lambda *_: gpu)
    refused = experiment("--jobs", "2")
    assert refused.code == 2 and not Path("grid").exists()
    assert "error: --jobs is 2: expected 1 on cuda:0" in refused.err


def test_tables_and_experiments_do_not_share_their_options(call):
    for words in (["--seeds", "0"], ["--experiment", "controls", "--figures", "x"]):
        outcome = call("main.py", "compare", *words)
        assert outcome.code == 2 and "unrecognized arguments" in outcome.err


def test_the_page_holds_the_findings_that_are_stored():
    summaries = stored_summaries()
    if not summaries:
        pytest.skip("no experiment is stored yet")
    assert read_block("controls") == stored_text()
    assert all(controls_summary(s["cells"], s["control"]).items() <= s.items() for s in summaries)
