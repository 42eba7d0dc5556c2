"""TensorBoard shows the same tags of every run, and all runs in one table."""

import json
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context

import main
from utils.options.networks import load_network

CONVS = ["conv1", *(f"layer{k}.0.conv{n}" for k in (1, 2, 3) for n in (1, 2))]
NUMBERED = [f"{number:03d} {conv}" for number, conv in enumerate(CONVS, start=1)]
EPOCHS = {
    *(f"{what}/{images}" for what in ("accuracy", "loss") for images in ("train", "val", "test")),
    *(f"training/{name}" for name in ("images_per_second", "learning_rate", "stage")),
}
PLAN = {f"plan/{what}_{state}" for what in ("filters", "macs") for state in ("dense", "pruned")}
FINAL = {
    f"final/{name}"
    for name in (
        *("top1_percent", "top1_percent_dense", "top1_points_lost", "latency_ms", "latency_ratio"),
        *("macs", "macs_ratio", "parameters"),
    )
}
OPTIONS = {
    "arch",
    "criterion",
    "rates",
    "mode",
    "schedule",
    "init",
    "recipe",
    "lr",
    "epochs",
    "seed",
}


def drawn(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"histograms": 0})
    events.Reload()
    return events


def table_of_runs(folder: Path) -> tuple[set[str], set[str], dict[str, dict]]:
    """The columns of TensorBoard's table: options, metrics; and {run: what stands in its row}."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = MultiplexerDataProvider(runs, str(folder))
    backend, request = Context(TBContext(data_provider=provider)), RequestContext()
    experiment = get_experiment.Handler(
        request, backend, "", api_pb2.GetExperimentRequest(include_metrics=True)
    ).run()
    metrics = {info.name.tag for info in experiment.metric_infos}
    asked = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=9, allowed_statuses=[api_pb2.STATUS_SUCCESS], include_metrics=True
    )
    asked.col_params.extend(api_pb2.ColParams(metric={"tag": tag}) for tag in metrics)
    rows = {}
    for group in list_session_groups.Handler(request, backend, "", asked).run().session_groups:
        (session,) = group.sessions
        options = {
            name: value.string_value if value.HasField("string_value") else value.number_value
            for name, value in group.hparams.items()
        }
        rows[session.name] = options | {m.name.tag: m.value for m in session.metric_values}
    return {info.name for info in experiment.hparam_infos}, metrics, rows


@pytest.fixture(scope="module")
def runs(job, tmp_path_factory):
    """A folder with `baseline` and `pruned`, which went conv by conv; the last loses nothing."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(job.checkpoint.parents[1], folder / "baseline")
    words = ["--compress_rate", "[0.3]*6+[0.0]", "--schedule", "layerwise", "--job_dir"]
    assert main.main([*job.pruning, *words, str(folder / "pruned")]) == 0
    return folder


@pytest.fixture(scope="module")
def summary(runs):
    """The summary of the run in `pruned`."""
    return json.loads((runs / "pruned" / "summary.json").read_text())


def test_a_run_shows_these_tags_and_no_other(runs, summary):
    events = drawn(runs / "pruned")
    tags = events.Tags()
    assert set(tags["scalars"]) == EPOCHS | PLAN | FINAL
    maps = {f"feature_maps/{name}" for name in ("000 image", *NUMBERED)}
    assert set(tags["images"]) == maps | {"plan/filters", "plan/macs"}
    weights = {f"weights/{layer}" for layer in (*CONVS, "linear")}
    assert set(tags["histograms"]) == weights | {f"scores/{name}" for name in NUMBERED}
    assert tags["tensors"] == ["summary/text_summary"]

    def curve(tag):
        return {event.step: event.value for event in events.Scalars(tag)}

    layers = dict(enumerate(summary["layers"], start=1))
    assert curve("plan/filters_pruned") == {n: len(row["kept"]) for n, row in layers.items()}
    assert curve("plan/macs_dense") == {n: row["macs"]["dense"] for n, row in layers.items()}
    assert curve("training/stage") == {epoch: epoch + 1 for epoch in range(6)}
    (page,) = events.Tensors("summary/text_summary")
    assert page.tensor_proto.string_val[0].decode() == (runs / "pruned" / "summary.md").read_text()


def test_histograms_count_filters_and_the_weights_that_are_left(runs):
    events = drawn(runs / "pruned")
    (scores,) = events.Histograms("scores/002 layer1.0.conv1")
    assert scores.histogram_value.num == 16
    assert scores.histogram_value.max <= 32, "no 32 x 32 map has a higher rank"
    weights = events.Histograms("weights/conv1")
    counts = [(found.step, found.histogram_value.num) for found in weights]
    assert counts == [(0, 16 * 27), (1, 12 * 27), (2, 12 * 27)]
    before, after = (weights[step].histogram_value.sum for step in (1, 2))
    assert before != after, "fine-tuning changed nothing"


def test_the_weights_before_the_fine_tuning_are_those_that_it_starts_from(call, job):
    words = ["--compress_rate", "[0.4]*7", "--init", "scratch", "--epochs", "0", "--job_dir", "run"]
    start = load_network(call("main.py", *job.pruning, *words).json["pruned_file"]).model
    dense, fresh = drawn(Path("run")).Histograms("weights/conv1")
    assert (dense.step, fresh.step) == (0, 1)
    assert fresh.histogram_value.sum == pytest.approx(start.conv1.weight.sum().item(), rel=1e-4)


def test_two_commands_share_one_table_of_runs(runs, summary, job):
    options, metrics, rows = table_of_runs(runs)
    assert (options, metrics) == (OPTIONS, FINAL)
    assert rows.keys() == {"pruned", "baseline"}
    assert rows["baseline"]["final/macs"] == job.trained["macs"]
    row, baseline = rows["pruned"], rows["baseline"]
    told = ("resnet_8", "rank", "[0.3]*6+[0.0]", "layerwise", 1)
    assert tuple(row[name] for name in ("arch", "criterion", "rates", "schedule", "epochs")) == told
    assert [baseline[name] for name in ("arch", "criterion", "epochs")] == ["resnet_8", "-", 3]
    physical = summary["physical"]
    assert row["final/macs"] == physical["pruned"]["macs"]
    assert row["final/macs_ratio"] == pytest.approx(baseline["final/macs"] / row["final/macs"])
    states = ("finetuned_best", "dense")
    tops = [summary["accuracy"][state]["test"]["top1_percent"] for state in states]
    assert [row["final/top1_percent"], row["final/top1_percent_dense"]] == pytest.approx(tops)
    assert row["final/top1_points_lost"] == pytest.approx(tops[1] - tops[0])
    assert row["final/latency_ms"] == pytest.approx(
        summary["latency"]["batch"]["pruned"]["median_ms"]
    )


def test_ranks_can_be_drawn_into_a_folder_without_curves(call, job):
    words = ["--num_images", "4", "--output", "ranks", "--tensorboard", "board/ranks"]
    assert call("rank_generation.py", *job.network, *words).code == 0
    tags = drawn(Path("board/ranks")).Tags()
    assert set(tags["histograms"]) == {f"scores/{name}" for name in NUMBERED}
    assert set(tags["images"]) == {f"feature_maps/{name}" for name in ("000 image", *NUMBERED)}
    again = call("rank_generation.py", *job.network, *words)
    assert again.code == 2
    assert "--tensorboard board/ranks holds curves already: expected a folder" in again.err
