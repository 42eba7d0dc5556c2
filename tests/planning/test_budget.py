"""`main.py prune --target_...`: rates that leave what was asked for, found once and kept."""

import json
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from models.registry import example_images
from utils.commands.scan import run_scan
from utils.metrics.cost import counts, physical_cost
from utils.options.networks import draw_network
from utils.options.prune_options import PruneConfig
from utils.options.scan_options import ScanConfig
from utils.options.score_options import how_scored
from utils.planning.budget import budget_line, find_budget, full_ranks
from utils.planning.plan import make_plan, score_layers
from utils.planning.scanning import plan_scan
from utils.pruning.sensitivity import ScanPoint
from utils.runs.job_folder import JobFolder
from utils.runs.options import as_dict, parse

pytestmark = pytest.mark.usefixtures("quick")

SCORES = {"rank_folder": Path("absent"), "seed": 0}


@cache
def dense(arch):
    return draw_network(arch, 0)


def config_of(arch, **how):
    return PruneConfig(arch=arch, untrained=True, criterion="l1", **how)


def found_by(config):
    network, job = dense(config.arch), JobFolder("absent")
    scores = score_layers(network, **how_scored(config))
    return find_budget(config, network, scores, job, images=None, make_scan=run_scan)


def left_by_rates(config, compress_rate):
    """{"macs": share, "params": share} that really stay at these rates."""
    how = {"group": config.group, "round_to": config.round_to}
    network = dense(config.arch)
    planned = make_plan(network, compress_rate=compress_rate, criterion="l1", **SCORES, **how)
    example = example_images(config.arch)
    after, before = (counts(physical_cost(x, example)) for x in (planned.slim, network.model))
    return {
        "macs": after["macs"] / before["macs"],
        "params": after["parameters"] / before["parameters"],
    }


def write_scan(folder, config):
    """A finished scan of made-up losses, rising faster the nearer a conv is to the image."""
    network = dense(config.arch)
    scores = score_layers(network, criterion="l1", **SCORES)
    scan = ScanConfig(arch=config.arch, untrained=True, criterion="l1", rates=(0.3, 0.6, 0.9))
    points = [
        ScanPoint((conv,), rate, 8, 0, 0, 0, int(900 * (1 - rate**2 / number)), 1000, 0.5 + rate)
        for number, conv in enumerate(scores, start=1)
        for rate in scan.rates
    ]
    folder.mkdir()
    job = JobFolder(folder)
    job.log.write_text("".join(json.dumps(asdict(point)) + "\n" for point in points))
    job.config.write_text(json.dumps(plan_scan(scan, network, scores).identity))
    whole = {"correct": 900, "images": 1000, "loss": 0.5}
    job.summary_json.write_text(json.dumps({"dense": whole}))


CASES = [
    *(("resnet_8", allocation, "macs", {}) for allocation in ("uniform", "global", "sensitivity")),
    *(("resnet_8", "global", "params", how) for how in ({}, {"group": True})),
    *(("resnet_8", "uniform", "macs", {"round_to": k, "group": True}) for k in (1, 4)),
    ("resnet_20", "sensitivity", "params", {}),
    ("resnet_20", "global", "macs", {"round_to": 8}),
    ("vgg_16_bn", "sensitivity", "macs", {}),
    ("resnet_56", "uniform", "macs", {}),
]


@pytest.mark.parametrize(("arch", "allocation", "of", "how"), CASES)
def test_the_printed_rates_leave_what_was_asked_for(tmp_path, arch, allocation, of, how):
    config = config_of(arch, allocation=allocation, **{f"target_{of}": 0.5}, **how)
    if allocation == "sensitivity":
        write_scan(tmp_path / "scan", config)
        config = PruneConfig(**vars(config) | {"scan": tmp_path / "scan"})
    found = found_by(config)
    left = left_by_rates(config, found["compress_rate"])[of]
    assert left == found["left"] == pytest.approx(0.5, rel=0.01)
    assert found["within_tolerance"] and found["allocation"] == allocation


def test_a_target_is_as_near_as_multiples_allow_and_says_so():
    all_there_is = ["[0.0]*7", "[0.0]*6+[0.5]", "[0.0]*5+[0.5]+[0.0]", "[0.0]*5+[0.5]*2"]
    how = {"round_to": 32, "max_rate": 0.5}  # only the two convs of 64 filters can lose any
    config = config_of("resnet_8", target_macs=0.5, **how)
    shares = sorted(left_by_rates(config, rates)["macs"] for rates in all_there_is)
    between = 0.51 * shares[-1] + 0.49 * shares[-2]
    found = found_by(config_of("resnet_8", target_macs=between, **how))
    assert found["left"] == shares[-1] == 1.0 and not found["within_tolerance"]


def test_a_target_below_the_floor_names_what_can_be_reached():
    with pytest.raises(
        ValueError, match=r"--target_macs 0\.05 is out of reach: within --max_"
    ) as e:
        found_by(config_of("resnet_8", target_macs=0.05, max_rate=0.5))
    least = float(re.search(r"at least (0\.\d+) of the MACs stay", str(e.value))[1])
    found = found_by(config_of("resnet_8", target_macs=least, max_rate=0.5))
    assert found["left"] == pytest.approx(least, rel=0.01)
    assert set(found["compress_rate"].split("+")) == {"[0.5]*7"}


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (
            {"compress_rate": "[0.5]*7"},
            r"--target_macs 0\.5 with --compress_rate \[0\.5\]\*7: expec",
        ),
        ({"ratio": (0.5,)}, r"--target_macs 0\.5 with --ratio"),
        ({"target_params": 0.4}, r"--target_macs 0\.5 with --target_params 0\.4: expected one"),
        ({"layout": "hrankplus"}, r"--target_macs 0\.5 with --layout hrankplus"),
        ({"start_cov": 2}, r"--target_macs 0\.5 with --start_cov 2"),
        ({"target_macs": 1.0}, r"--target_macs is 1: expected the share that is to remain"),
        ({"target_macs": float("nan")}, r"--target_macs is nan: expected the share"),
        ({"max_rate": 1.0}, r"--max_rate is 1: expected more than 0, less than 1"),
        ({"latency_batch_size": 0}, r"--latency_batch_size is 0: expected at least 1"),
        ({"drop_branches": "off"}, r"--drop_branches is 'off' with --target_macs: expected it"),
        ({"scan": Path("x")}, r"--scan x with --allocation global: expected it with --allocation"),
        (
            {"remove_zeros": True},
            r"--target_macs is .* with --remove_zeros, which chooses no filters: expected",
        ),
        ({"target_macs": None, "scan": Path("x")}, r"--scan is 'x' without a target: expected --t"),
        ({"target_macs": None, "max_rate": 0.5}, r"--max_rate is 0.5 without a target"),
        ({"target_macs": None, "allocation": "uniform"}, r"--allocation is 'uniform' without a"),
    ],
)
def test_options_that_do_not_go_together_are_named(wrong, expected):
    with pytest.raises(ValueError, match=expected):
        config_of("resnet_8", **{"target_macs": 0.5, **wrong})


def test_ranks_are_shares_of_the_maps_that_they_were_ranked_on(tmp_path):
    official = full_ranks(dense("vgg_16_bn"), tmp_path)
    assert (official["features.conv0"], official["features.conv3"]) == (32, 16)  # after pooling
    layers = [{"conv": "features.conv3", "map_size": [32, 30]}]
    (tmp_path / "manifest.json").write_text(json.dumps({"layers": layers}))
    assert full_ranks(dense("vgg_16_bn"), tmp_path) == official | {"features.conv3": 30}


def test_a_run_by_target_is_the_run_by_its_rates(call, job):
    words = ["prune", *job.pruning, "--epochs", "0"]
    found = call("main.py", *words, "--target_macs", "0.6").json
    by_rates = call("main.py", *words, "--compress_rate", found["compress_rate"], "--dry_run").json
    assert by_rates["layers"] == found["layers"] and by_rates["budget"] is None
    macs = {state: found["physical"][state]["macs"] for state in ("dense", "pruned")}
    assert found["budget"]["left"] == macs["pruned"] / macs["dense"]
    summary = Path(found["job_dir"], "summary.md").read_text()
    assert f"compress rate `{found['compress_rate']}`" in summary
    said = r"target: 60\.0% of the dense network's MACs; left: (59|60)\.\d\d% \(global\)"
    assert re.search(said, summary)


def test_a_target_is_counted_before_new_ranks_and_says_so(call, job):
    words = ["prune", *job.pruning, "--target_macs", "0.6", "--dry_run"]
    steps = ["--schedule", "iterative", "--steps", "2"]
    plain = call("main.py", *words, *steps).json["budget"]
    found = call("main.py", *words, *steps, "--rerank").json["budget"]
    assert found == plain | {"reranked": True}
    assert budget_line(found).startswith(budget_line(plain))
    assert "--rerank keeps others" in budget_line(found).removeprefix(budget_line(plain))


def test_sensitivity_makes_its_scan_and_takes_it_up(call, job):
    words = ["prune", *job.network, "--criterion", "l1", "--epochs", "0", "--target_macs", "0.6"]
    words += ["--allocation", "sensitivity"]
    outcome = call("main.py", *words, "--dry_run")
    assert outcome.code == 2 and "needs a scan, which --dry_run does not make" in outcome.err
    folder, command = re.search(
        r"one in (\S+), .*`python main\.py scan (.*?)`", outcome.err
    ).groups()
    found = call("main.py", *words).json
    assert found["budget"]["scan"] == folder and found["budget"]["within_tolerance"]
    made = json.loads(Path(folder, "config.json").read_text())
    told = as_dict(parse(ScanConfig, command.split(), prog="", description=""))
    assert {name: value for name, value in made.items() if name in told}.items() <= told.items()
    log = Path(folder, "log.jsonl").read_bytes()
    again = call("main.py", *words, "--dry_run", "--scan", folder).json
    assert again["compress_rate"] == found["compress_rate"]
    assert Path(folder, "log.jsonl").read_bytes() == log


def test_a_scan_of_something_else_is_refused(tmp_path):
    folder = tmp_path / "scan"
    config = config_of("resnet_8", target_macs=0.5, allocation="sensitivity", scan=folder)
    write_scan(folder, config)
    path = JobFolder(folder).config
    made = json.loads(path.read_text())
    for change, expected in (
        ({"arch": "resnet_20"}, r"was made with arch resnet_20: expected resnet_8"),
        ({"criterion": "l2"}, r"was made with criterion l2: expected l1"),
        ({"group": True}, r"was made with group True: expected False"),
        ({"checkpoint_sha256": "0", "resume": "other.pt"}, r"was made from other\.pt, a file with"),
        ({"masks_sha256": "0"}, r"removed other filters than these scores do"),
        ({"command": "prune"}, r"scan: expected the folder of a finished `main\.py scan`"),
    ):
        path.write_text(json.dumps(made | change))
        with pytest.raises(ValueError, match=expected):
            found_by(config)
    JobFolder(folder).summary_json.unlink()
    with pytest.raises(ValueError, match="scan: expected the folder of a finished"):
        found_by(config)


def test_what_targets_can_reach_is_where_they_are_refused_below(call, job):
    words = ["prune", *job.pruning, "--criterion", "l1"]
    rows = {row["of"]: row for row in call("main.py", *words, "--targets").json["targets"]}
    for row in rows.values():
        assert 0 < row["least"] < row["typical"] < row["most"]
    assert rows["macs"]["most"] == 1
    ratio = rows["ms"]["most"]
    assert rows["ms"]["least"] == pytest.approx(ratio * rows["latency"]["least"])
    least = rows["macs"]["least"]
    assert call("main.py", *words, "--target_macs", f"{0.9 * least}", "--dry_run").code == 2
    assert call("main.py", *words, "--target_macs", f"{1.01 * least}", "--dry_run").code == 0
