"""`main.py scan`: its points are what pruning that layer alone gives, whole or resumed."""

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.command_lines import files_in
from tests.forked import fork_frozen
from utils.metrics.accuracy import Accuracy
from utils.metrics.cost import Cost
from utils.pruning.sensitivity import ScanPoint, read_points, unit_name
from utils.reports.scan_results import scan_markdown, scan_summary

CONVS = ["conv1", *(f"layer{k}.0.conv{n}" for k in (1, 2, 3) for n in (1, 2))]
SCAN = ["--rates", "0.25,0.5", "--job_dir", "scan"]


@pytest.fixture
def words(job):
    """The words of a scan by ranks, on the 20 test images."""
    return ["scan", *job.network, "--rank_conv", str(job.ranks), "--split", "test", *SCAN]


def test_a_point_is_what_pruning_that_layer_alone_gives(call, job, words):
    found = call("main.py", *words).json
    assert [unit["name"] for unit in found["units"]] == CONVS
    for place in (0, 2, 5):
        rates = "+".join(f"[{0.5 if k == place else 0}]" for k in range(len(CONVS)))
        prune = ["prune", *job.pruning, "--epochs", "0", "--compress_rate", rates]
        pruned = call("main.py", *prune, "--job_dir", f"pruned{place}").json
        point = found["units"][place]["points"][1]
        answers = pruned["accuracy"]["pruned"]["test"]
        assert answers["loss"] == pytest.approx(point["loss"], rel=1e-6)
        assert answers["correct"] == point["correct"]
        assert point["filters_removed"] == found["units"][place]["channels"] // 2
        macs = {state: pruned["physical"][state]["macs"] for state in ("dense", "pruned")}
        assert found["dense"]["macs"] == macs["dense"]
        assert point["macs_removed"] == macs["dense"] - macs["pruned"] > 0
        assert found["dense"]["correct"] == pruned["accuracy"]["dense"]["test"]["correct"]


def test_a_killed_scan_goes_on_and_ends_as_if_it_never_was(call, words, tmp_path):
    whole = call("main.py", *words, "--job_dir", "whole").json
    process = fork_frozen(words, tmp_path)
    process.kill()
    process.join()
    log = Path("scan/log.jsonl")
    assert len(log.read_text().splitlines()) == 1
    with log.open("a") as file:
        file.write('{"layers": ["conv1"], "ra')  # as if it was killed amid the next line
    found = call("main.py", *words).json
    for name in ("log.jsonl", "scan.csv", "config.json"):
        assert Path("scan", name).read_bytes() == Path("whole", name).read_bytes(), name
    differ = {name for name in whole if whole[name] != found[name]}
    assert differ <= {"job_dir", "environment"}


def test_a_point_that_is_done_is_not_measured_again(call, words):
    call("main.py", *words)
    log = Path("scan/log.jsonl")
    first, second, *rest = log.read_text().splitlines(keepends=True)
    marked = json.loads(second) | {"loss": 123.0}
    log.write_text("".join([first, json.dumps(marked) + "\n", *rest[:-1]]))
    found = call("main.py", *words).json
    losses = [[point["loss"] for point in unit["points"]] for unit in found["units"]]
    assert losses[0][1] == 123.0 and losses[-1][-1] == json.loads(rest[-1])["loss"]
    assert len(log.read_text().splitlines()) == 2 * len(CONVS)


def test_what_a_scan_leaves_behind(call, words):
    found = call("main.py", *words).json
    files = files_in(Path("scan"))
    assert json.loads(files["summary.json"]) == found
    assert {"config.json", "log.jsonl", "scan.csv", "summary.md"} < files.keys()
    rows = list(csv.DictReader(files["scan.csv"].decode().splitlines()))
    points = read_points(Path("scan"))
    assert len(rows) == len(points) == 2 * len(CONVS)
    for row, point in zip(rows, points, strict=True):
        assert (row["layers"], float(row["rate"])) == (" ".join(point.layers), point.rate)
        assert (int(row["correct"]), int(row["macs_removed"])) == (
            point.correct,
            point.macs_removed,
        )
    events = EventAccumulator("scan")
    events.Reload()
    curve = events.Scalars("top1_percent/003 layer1.0.conv2")
    expected = [point["top1_percent"] for point in found["units"][2]["points"]]
    assert [event.step for event in curve] == [250, 500]
    assert [event.value for event in curve] == pytest.approx(expected)
    pytest.importorskip("matplotlib")
    with Image.open("scan/scan.png") as image:
        assert len(set(image.convert("L").tobytes())) > 20


def test_groups_are_whole_streams_and_held_out_images_are_the_default(call, job):
    words = ["scan", *job.network, "--criterion", "l1", "--group", "--rates", "0.5"]
    found = call("main.py", *words).json
    assert [unit["name"] for unit in found["units"]] == [
        "conv1 (+3)",
        *CONVS[1::2][:2],
        "layer2.0.conv2 (+1)",
        CONVS[5],
        CONVS[6],
    ]
    assert found["units"][0]["points"][0]["filters_removed"] == 4 * 8
    assert found["dense"]["images"] == 6 and "validation split" in found["dataset"]
    assert found["job_dir"].startswith("result/resnet_8/scan_l1_group_")
    assert (
        "- conv1 (+3): conv1, layer1.0.conv2, " in Path(found["job_dir"], "summary.md").read_text()
    )


def test_the_images_are_the_same_subset_each_time(call, words):
    found = [
        call("main.py", *words, "--num_images", "7", "--job_dir", name).json["units"]
        for name in ("one", "two")
    ]
    assert found[0] == found[1]
    assert found[0][0]["points"][0]["images"] == 7


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--rates", "0.5,1"], r"--rates is '0\.5,1': expected ascending rates, at least 0 and le"),
        (["--rates", "0.5,0.25"], r"--rates is '0\.5,0\.25': expected ascending"),
        (["--rates", "nan"], r"--rates is 'nan': expected ascending"),
        (["--rates", ""], r"--rates is '': expected ascending"),
        (["--num_images", "0"], r"--num_images is 0: expected at least 1"),
        (["--num_images", "21"], r"--num_images is 21: expected at most the 20 of"),
        (["--val_fraction", "1", "--split", "val"], r"validation fraction: expected more than 0"),
        (["--rank_conv", "absent"], r"folder absent does not exist: expected rank_conv"),
        (["--resume", "absent.pt"], r"absent\.pt does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(call, words, wrong, expected):
    outcome = call("main.py", *words, *wrong)
    assert (outcome.code, outcome.out) == (2, "")
    sentences = [line for line in outcome.err.splitlines() if "error:" in line]
    assert len(sentences) == 1 and sentences[0].startswith("main.py scan: error: ")
    assert re.search(expected, sentences[0]), sentences[0]
    assert not Path("scan").exists()


def test_a_folder_of_other_options_is_refused(call, words):
    call("main.py", *words)
    outcome = call("main.py", *words, "--seed", "1")
    assert outcome.code == 2
    assert "scan was started with seed 0, not 1: give another --job_dir" in outcome.err


def test_a_log_with_points_of_another_scan_is_refused_and_left_alone(call, words):
    call("main.py", *words)
    log = Path("scan/log.jsonl")
    log.write_text(log.read_text().replace('"layer1.0.conv1"', '"stem"', 1))
    before = log.read_text()
    outcome = call("main.py", *words)
    assert outcome.code == 2 and log.read_text() == before
    assert "log.jsonl has a point of 'stem' at the rate " in outcome.err


def points(layer, *correct):
    """Points of one layer at rates 0.25, 0.5, ...: so many right of 100."""
    rates = [0.25 * k for k in range(1, 1 + len(correct))]
    return [
        ScanPoint((layer,), rate, 8, int(8 * rate), int(8 * rate), 10, right, 100, 0.5)
        for rate, right in zip(rates, correct, strict=True)
    ]


def test_the_most_sensitive_layer_is_first_and_the_interval_is_the_dense_networks():
    dense, cost = Accuracy(90, 100, 0.1), Cost(1000, 10, (), ())
    low, _ = dense.interval_percent()
    assert 82 < low < 83
    found = [
        *points("robust", 90, 89, 83),
        *points("fragile", 82, 90, 10),
        *points("odd", 83, 82, 83),
    ]
    summary = scan_summary(dense, cost, found)
    by_name = {unit["name"]: unit for unit in summary["units"]}
    assert list(by_name) == ["robust", "fragile", "odd"]  # in the order of the network
    assert by_name["fragile"]["mean_drop"] == pytest.approx(90 - (82 + 90 + 10) / 3)
    limits = {name: unit["within_interval"] for name, unit in by_name.items()}
    assert limits == {"robust": 0.75, "fragile": None, "odd": 0.25}
    words = {"arch": "net", "dataset": "images", "options": {"criterion": "l1"}}
    rows = [
        line.split("|")[1].strip()
        for line in scan_markdown(summary | words).splitlines()
        if line.startswith("| ")
    ]
    assert rows == ["layer", "fragile", "odd", "robust"]


def test_a_unit_is_named_by_its_first_layer():
    assert [unit_name(layers) for layers in (["a"], ["a", "b", "c"])] == ["a", "a (+2)"]
