"""The figures of `compare`: the points in them by hand, and the files."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.reports.test_figure_style import without_matplotlib
from utils.paper.published_points import published_points
from utils.reports.compare_figures import side_by_side
from utils.reports.comparison_points import (
    accuracy_points,
    evaluated_points,
    latency_points,
)

KINDS = ("csv", "png")


def accuracy(correct):
    return {
        "test": {
            "correct": correct,
            "images": 200,
            "loss": 1.0,
            "top1_percent": correct / 2,
            "interval_percent": [correct / 2 - 3, correct / 2 + 2],
        }
    }


def timed(batch_size, dense, pruned):
    spread = {"threads": 2, "batch_size": batch_size}
    times = {"dense": (dense, dense, dense), "pruned": (pruned, 0.9 * pruned, 1.5 * pruned)}
    names = ("median_ms", "p10_ms", "p90_ms")
    return {state: dict(zip(names, found, strict=True)) | spread for state, found in times.items()}


def counts(macs):
    return {"macs": macs, "parameters": 1}


SUMMARY = {
    "arch": "resnet_56",
    "criterion": "l1",
    "init": "scratch",
    "compress_rate": "[0.5]*55",
    "options": {},
    "job_dir": "result/resnet_56/mine",
    "paper_rule": {"dense": counts(200), "pruned": counts(100)},
    "physical": {"dense": counts(400), "pruned": counts(100)},
    "accuracy": {
        "dense": accuracy(180),
        "pruned": accuracy(20),
        "finetuned_best": accuracy(170),
        "finetuned_last": accuracy(160),
    },
    "layers": [{"conv": "a", "filters": 2, "kept": [0], "macs": {"dense": 4e6, "pruned": 1e6}}],
    "latency": {"one_image": timed(1, 10.0, 9.0), "batch": timed(100, 200.0, 100.0)},
    "environment": {"device": "a processor"},
}
EVALUATED = {
    "macs": 400,
    "latency": [timed(1, 10.0, 0.0)["dense"]],
    "against": {"macs": 100, "latency": [timed(1, 0.0, 9.0)["pruned"]]},
    "environment": {"device": "a processor"},
}


def test_a_run_is_three_points_by_both_rules_with_their_intervals():
    points = accuracy_points("resnet_56", [SUMMARY, {**SUMMARY, "arch": "resnet_20"}])
    dense, before, tuned = (point for point in points if point["state"] != "published")
    assert (dense["macs_percent"], dense["physical_macs_percent"]) == (100.0, 100.0)
    assert (tuned["macs_percent"], tuned["physical_macs_percent"]) == (50.0, 25.0)
    assert [point["top1_percent"] for point in (dense, before, tuned)] == [90.0, 10.0, 85.0]
    assert [point["difference"] for point in (dense, before, tuned)] == [0.0, -80.0, -5.0]
    assert (tuned["low_percent"], tuned["high_percent"], tuned["images"]) == (82.0, 87.0, 200)
    assert (tuned["row"], tuned["method"]) == ("mine", "l1, from scratch")
    assert tuned["state"] == "fine-tuned" and tuned["source"] == SUMMARY["job_dir"]


def test_a_run_that_removes_nothing_is_not_one_of_its_criterion():
    costs = {
        rule: {**SUMMARY[rule], "pruned": SUMMARY[rule]["dense"]}
        for rule in ("paper_rule", "physical")
    }
    *_, tuned = accuracy_points("resnet_56", [{**SUMMARY, **costs, "init": "pruned"}])
    assert (tuned["method"], tuned["macs_percent"]) == ("nothing removed", 100.0)


def test_published_points_come_before_the_runs():
    points = accuracy_points("resnet_56", [SUMMARY])
    published = [point for point in points if point["state"] == "published"]
    assert points[: len(published)] == published
    assert len(published) == len(published_points("resnet_56")) == 19


def test_a_latency_is_in_percent_of_the_dense_median():
    one, batch = latency_points(SUMMARY)
    assert (one["batch_size"], one["latency_percent"]) == (1, 90.0)
    assert (one["p10_percent"], one["p90_percent"]) == pytest.approx((81.0, 135.0))
    assert (batch["batch_size"], batch["latency_percent"]) == (100, 50.0)
    assert one["physical_macs_percent"] == batch["physical_macs_percent"] == 25.0
    assert (batch["dense_ms"], batch["pruned_ms"]) == (200.0, 100.0)


def test_of_two_evaluated_networks_the_larger_is_the_dense_one():
    found = evaluated_points("mine", EVALUATED)
    assert found == [latency_points(SUMMARY)[0]]
    other = {**EVALUATED["against"], "environment": EVALUATED["environment"]}
    swapped = {**other, "against": {key: EVALUATED[key] for key in ("macs", "latency")}}
    assert evaluated_points("mine", swapped) == found


def test_points_that_would_cover_each_other_stand_around_their_place():
    assert side_by_side([50.0, 30.0, 50.04, 49.98]) == pytest.approx([48.5, 30.0, 50.04, 51.48])
    assert side_by_side([20.0, 20.0]) == [19.25, 20.75]


@pytest.fixture
def finished(tmp_path):
    """A run's folder and a file with what `evaluate` printed."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "both.json").write_text(json.dumps(EVALUATED))
    return ["compare", "--arch", "mobilenet_v2", "--job_dir", "mine", "--evaluated", "both.json"]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_compare_writes_figures_and_their_points(finished, call):
    pytest.importorskip("matplotlib")
    outcome = call("main.py", *finished, "--figures", "figures")
    assert outcome.code == 0, outcome.err
    folder = Path("figures")
    names = {f"{name}.{kind}" for name in ("accuracy_resnet_56", "latency") for kind in KINDS}
    names |= {"layers_resnet_56_mine.png"}
    assert {path.name for path in folder.iterdir()} == names
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert image.width == 1350 and len(set(image.convert("L").tobytes())) > 20
    assert [row["row"] for row in rows_of(folder / "latency.csv")] == ["mine", "mine", "both"]
    points = rows_of(folder / "accuracy_resnet_56.csv")
    assert [point["source"] for point in points if point["row"] == "FT-GAL-0.6"] != [""]


def test_without_runs_every_published_network_gets_its_figure(call):
    pytest.importorskip("matplotlib")
    assert call("main.py", "compare", "--arch", "mobilenet_v2", "--figures", "figures").code == 0
    assert {path.name for path in Path("figures").iterdir()} == {
        "accuracy_mobilenet_v2.csv",
        "accuracy_mobilenet_v2.png",
    }


def test_without_matplotlib_the_points_are_written_and_a_hint_is_given(finished, call, monkeypatch):
    without_matplotlib(monkeypatch)
    outcome = call("main.py", *finished, "--figures", "figures")
    assert outcome.code == 0 and "pip install matplotlib" in outcome.err
    assert {path.suffix for path in Path("figures").iterdir()} == {".csv"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a file of JSON"),
        ("{", "expected a file of JSON"),
        ("[1]", "expected a file of JSON"),
        ('{"macs": 1}', "expected what `evaluate --against CKPT --json` prints"),
    ],
)
def test_a_file_that_evaluate_did_not_print_is_one_sentence(finished, call, content, message):
    Path("both.json").unlink() if content is None else Path("both.json").write_text(content)
    outcome = call("main.py", *finished, "--figures", "figures")
    assert outcome.code == 2 and outcome.out == "" and not Path("figures").exists()
    assert "both.json" in outcome.err and message in outcome.err


def test_evaluated_files_need_a_folder_for_the_figure(finished, call):
    outcome = call("main.py", *finished)
    assert outcome.code == 2 and "--evaluated both.json without --figures" in outcome.err
