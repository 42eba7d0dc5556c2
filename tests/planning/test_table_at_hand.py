"""A plan that saves no time by a latency table at hand is told so, with the target that does."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import printed_by
from utils.metrics.latency_table import table_of
from utils.metrics.layer_shapes import layer_shapes
from utils.options.networks import load_network

pytestmark = pytest.mark.usefixtures("quick")
TABLE = Path("result/latency/eager_cpu_1_1.json")
TIMED = ("--latency_threads", "1", "--dry_run")


@pytest.fixture(scope="module")
def measured(job, tmp_path_factory):
    """The table that a search for a target in time measures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("measured"))
        printed_by("main.py", "prune", *job.pruning, "--target_latency", "0.6", *TIMED)
        return TABLE.read_text()


@pytest.fixture
def words(job, measured):
    """The words of a dry run by half of the filters, where a table was measured."""
    TABLE.parent.mkdir(parents=True)
    TABLE.write_text(measured)
    return ["prune", *job.pruning, "--ratio", "0.5", "--dry_run"]


def rewritten(change):
    table = json.loads(TABLE.read_text())
    change(table)
    TABLE.write_text(json.dumps(table))


def test_times_that_widths_do_not_change_are_no_faster_and_the_target_is_named(call, words):
    rewritten(lambda table: table["cells"].update(dict.fromkeys(table["cells"], 1.0)))
    (said,) = call("main.py", *words).json["no_faster"]
    assert "its layers take 100% of the dense network's time" in said
    assert re.search(r"`--target_latency 0\.95 --runtime eager --latency_batch_size 1", said)


def test_times_that_go_with_the_channels_are_faster(call, words):
    def proportional(table):
        for key in table["cells"]:
            reads, writes = map(int, key.rpartition(": ")[2].split(" > "))
            table["cells"][key] = 1e-3 * reads * writes

    rewritten(proportional)
    assert call("main.py", *words).json["no_faster"] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["measured_on"].update(version="torch 1.0"),
        lambda table: table["measured_on"].update(runtime="another"),
        lambda table: table["measured_on"].update(cpus=0),
        lambda table: table["cells"].popitem(),
        lambda table: table.update(block=-1),
    ],
)
def test_tables_of_something_else_say_nothing(call, words, job, change):
    shapes = layer_shapes(*_network(job)).values()
    assert table_of(TABLE, shapes) is not None
    rewritten(change)
    assert table_of(TABLE, shapes) is None
    assert call("main.py", *words).json["no_faster"] == []


def _network(job):
    network = load_network(job.checkpoint, "resnet_8")
    return network.model, network.image
