"""Several processes do what one does: under torchrun itself and, sooner, as it would start them."""

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

import main
import rank_generation
from tests.command_lines import files_in, json_of, start
from tests.forked import signal_in_step
from tests.several_processes import side_by_side
from utils.runs.checkpoint import load_file

DOORS = {"main.py": main.main, "rank_generation.py": rank_generation.main}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
TRAINING = ["--epochs", "3", "--lr", "0.01", "--train_batch_size", "15", "--job_dir", "job"]
TRAINING += ["--eval_batch_size", "5"]  # 54, 6 and 20 images: four steps, two and four batches


def door(words: list[str], stop: tuple[int, int, int] | None) -> str:
    """Go through a door and return what it prints; stop: (process, signal, step of training)."""
    if stop is not None and str(stop[0]) == os.environ["RANK"]:
        signal_in_step(*stop[1:])
    script, *rest = words
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = DOORS[script](rest)
    if code:
        sys.exit(code)
    return printed.getvalue()


def two_doors(folder: Path, words: list[str], stop: tuple[int, int, int] | None = None):
    """Return the exit codes of two processes, their errors, and the JSON of the first."""
    folder.mkdir(exist_ok=True)
    first, second = side_by_side(2, folder, door, words, stop)
    assert not second.value
    return [first.code, second.code], [first.err, second.err], json.loads(first.value or "{}")


@pytest.fixture(scope="module")
def words(job) -> list[str]:
    return ["main.py", "train", *job.data, *TRAINING]


@pytest.fixture(scope="module")
def of_two(words, tmp_path_factory) -> dict[str, bytes]:
    """The files of two processes that trained."""
    folder = tmp_path_factory.mktemp("of two")
    codes, (_, second), _ = two_doors(folder, words)
    assert (codes, second) == ([0, 0], "")
    return files_in(folder / "job")


def assert_close(found: Path, expected: Path) -> None:
    """Two checkpoints agree but for rounding, and so do their epochs."""
    found, expected = load_file(found), load_file(expected)
    assert list(found["state_dict"]) == list(expected["state_dict"])
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], value, rtol=0.02, atol=2e-3)
    for record, other in zip(found["records"], expected["records"], strict=True):
        assert record.pop("stage") == other.pop("stage")
        assert record == pytest.approx(other, rel=1e-3)


def assert_same_accuracy(found: dict, expected: dict) -> None:
    assert (found["correct"], found["images"]) == (expected["correct"], expected["images"])
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def test_torchrun_prunes_as_one_process_does(call, job, tmp_path):
    words = ["main.py", "prune", *job.pruning, "--compress_rate", "[0.3]*7", "--mode", "mask"]
    words += ["--job_dir", "job"]
    (tmp_path / "two").mkdir()
    process = start(words, tmp_path / "two", TORCHRUN)
    alone, pruned = call(*words).json, json_of(process)
    assert pruned["layers"] == alone["layers"]
    assert (pruned["environment"]["processes"], alone["environment"]["processes"]) == (2, 1)
    for name, found in pruned["accuracy"]["dense"].items():
        assert_same_accuracy(found, alone["accuracy"]["dense"][name])
    assert (tmp_path / "two/job/config.json").read_bytes() == Path("job/config.json").read_bytes()
    assert_close(tmp_path / "two/job/checkpoints/last.pt", Path("job/checkpoints/last.pt"))
    found, expected = (load_file(place / "job/pruned.pt") for place in (tmp_path / "two", tmp_path))
    for name, value in expected["state_dict"].items():
        zero = found["state_dict"][name] == 0
        assert torch.equal(zero, value == 0), name  # the masks held in both


def test_two_processes_train_as_one_does(call, words, of_two, tmp_path):
    assert call(*words).code == 0
    (tmp_path / "two.pt").write_bytes(of_two["checkpoints/last.pt"])
    assert_close(tmp_path / "two.pt", Path("job/checkpoints/last.pt"))
    assert Path("job/config.json").read_bytes() == of_two["config.json"]
    assert files_in(Path("job")).keys() - of_two.keys() == {
        path.name for path in Path("job").glob("events*")
    }


@pytest.mark.parametrize("process", [0, 1])
def test_killed_and_resumed_two_processes_end_where_they_would_have(
    words, of_two, tmp_path, process
):
    codes, _, _ = two_doors(tmp_path, words, (process, signal.SIGKILL, 7))
    assert codes[process] == -signal.SIGKILL
    assert codes[1 - process] != 0
    assert len((tmp_path / "job/log.jsonl").read_text().splitlines()) == 1
    assert two_doors(tmp_path, words)[0] == [0, 0]
    found = files_in(tmp_path / "job")
    for name in ("log.jsonl", "config.json", "checkpoints/best.pt"):
        assert found[name] == of_two[name], name


def test_a_signal_to_one_stops_both_after_the_same_step_and_one_may_go_on_alone(
    call, words, of_two, tmp_path
):
    codes, errors, _ = two_doors(tmp_path, words, (1, signal.SIGTERM, 6))
    assert codes == [128 + signal.SIGTERM, 1]
    assert "main.py train: stopped by SIGTERM: baseline, epoch 2, step 2 is saved" in errors[0]
    assert len(load_file(Path("job/checkpoints/last.pt"))["under_way"]["tally"]["sizes"]) == 2
    resumed = call(*words).json
    assert resumed["last"]["test"]["images"] == 20
    (tmp_path / "two.pt").write_bytes(of_two["checkpoints/last.pt"])
    assert_close(Path("job/checkpoints/last.pt"), tmp_path / "two.pt")


@pytest.mark.parametrize("split", ["test", "train"])
def test_evaluation_counts_every_image_once(call, job, tmp_path, split):
    words = ["main.py", "evaluate", *job.network, "--eval_batch_size", "7", "--split", split]
    codes, _, found = two_doors(tmp_path, words)
    assert codes == [0, 0]
    alone = call(*words).json
    assert_same_accuracy(found, alone)
    assert (found["macs"], found["size_bytes"]) == (alone["macs"], alone["size_bytes"])


def test_ranks_are_the_same_files_to_the_byte(call, job, tmp_path):
    words = ["rank_generation.py", *job.network, "--num_images", "20", "--batch_size", "6"]
    codes, _, ranked = two_doors(tmp_path, [*words, "--augment", "--output", "two"])
    assert codes == [0, 0]
    assert ranked["layers"] == call(*words, "--augment", "--output", "one").json["layers"]
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")


def test_more_processes_than_batches(call, job, tmp_path):
    words = ["rank_generation.py", *job.network, "--num_images", "20", "--output"]
    assert two_doors(tmp_path, [*words, "two"])[0] == [0, 0]
    assert call(*words, "one").code == 0
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gpu", "0"], "--gpu is '0': expected none under torchrun, each process takes a GPU"),
        (["--device", "cuda:0"], "--device is 'cuda:0': expected none under torchrun"),
        (["--compile"], "--compile is for one process: expected none of it in 2"),
        (["--lr", "-1"], "lr is -1.0: expected a number above 0"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_is_said_once(words, tmp_path, more, message):
    codes, errors, _ = two_doors(tmp_path, [*words, *more])
    assert codes == [2, 1]
    assert message in errors[0]
    assert errors[1] == ""


def test_help_ends_well_in_all(tmp_path):
    codes, errors, _ = two_doors(tmp_path / "two", ["main.py", "train", "--help"])
    assert (codes, errors) == ([0, 0], ["", ""])
