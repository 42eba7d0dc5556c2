"""A run that was stopped, by whatever, and is started again ends as one that never stopped."""

import importlib.util
import resource
import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from tests.command_lines import files_in, refused_for_a_full_disk
from tests.forked import fork, fork_frozen, signal_in_step

FILES = {"config.json", "log.jsonl", "plan.json", "pruned.pt", "summary.json", "summary.md"}
FILES |= {"layers.png"} if importlib.util.find_spec("matplotlib") else set()
SAME = ("log.jsonl", "plan.json", "pruned.pt", "checkpoints/best.pt")


@pytest.fixture(scope="module")
def words(job) -> list[str]:
    rates = ["--compress_rate", "[0.3]*7", "--epochs", "3"]
    return ["prune", *job.pruning, *rates, "--job_dir", "job"]


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run that never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    process = fork(words, folder, str)
    process.join()
    assert process.exitcode == 0, (folder / "err").read_text()
    return files_in(folder / "job")


def drawn(files: dict[str, bytes]) -> list[tuple[str, int, bytes]]:
    """What TensorBoard shows, but for what is timed: tag, step and value of each event."""
    found = []
    for name, content in files.items():
        if "tfevents" in name:
            Path("events").write_bytes(content)
            for record in RawEventFileLoader("events").Load():
                event = Event.FromString(record)
                values = event.summary.value
                for value in values:
                    if value.HasField("histo"):  # a dot product's last bit hangs on the memory
                        value.histo.ClearField("sum_squares")
                found += [(value.tag, event.step, value.SerializeToString()) for value in values]
    timed = ("training/images_per_second", "final/latency", "summary/", "_hparams_/")
    return sorted(point for point in found if not point[0].startswith(timed))


def assert_same_end(whole: dict[str, bytes]) -> None:
    found = files_in(Path("job"))
    assert drawn(found) == drawn(whole)
    for name in SAME:
        assert found[name] == whole[name], name
    assert {name for name in found if "/" not in name and "tfevents" not in name} == FILES


def assert_refused(outcome, expected: str) -> None:
    assert (outcome.code, outcome.out) == (2, "")
    assert expected in outcome.err.splitlines()[-1]


def test_while_it_runs_nobody_else_does_and_killed_it_goes_on(call, words, whole, tmp_path):
    process = fork_frozen(words, tmp_path)
    before = files_in(tmp_path)
    in_use = f"job is in use by another run (process {process.pid})"
    assert_refused(call("main.py", *words), in_use)
    process.kill()
    process.join()
    other_option = "job was started with lr 0.01, not 0.5: give another --job_dir, or delete job"
    assert_refused(call("main.py", *words, "--lr", "0.5"), other_option)
    assert files_in(tmp_path) == before
    assert "job/pruned.pt" not in before, "the run was over, so the rest proves nothing"
    resumed = call("main.py", *words).json
    assert len(whole["log.jsonl"].splitlines()) == 3 == resumed["options"]["epochs"]
    assert_same_end(whole)
    curves = sorted(Path("job").glob("*.tfevents.*"))
    again = call("main.py", *words).json
    assert again["seconds_of_finetuning"] == resumed["seconds_of_finetuning"] > 0
    assert sorted(Path("job").glob("*.tfevents.*")) == curves, "the same is drawn twice"


@pytest.mark.parametrize(
    ("number", "step", "place"),
    [(signal.SIGTERM, 6, "epoch 2, step 2"), (signal.SIGINT, 4, "epoch 1, step 4")],
)
def test_a_signal_is_answered_behind_the_step(call, words, whole, tmp_path, number, step, place):
    process = fork(words, tmp_path, signal_in_step, number, step)
    process.join()
    assert process.exitcode == 128 + number
    said = Path("err").read_text()
    outcome = f"finetune, {place} is saved; the same command continues"
    assert said.splitlines()[-1] == f"main.py prune: stopped by {number.name}: {outcome}"
    assert "Traceback" not in said
    Path("err").unlink()
    assert call("main.py", *words).code == 0
    assert_same_end(whole)


def test_a_stop_before_the_training_says_how_to_go_on(call, words, monkeypatch):
    def stop(*_):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("utils.commands.prune.check_removed", stop)
    outcome = call("main.py", *words)
    assert (outcome.code, outcome.out) == (143, "")
    expected = "main.py prune: stopped by SIGTERM: the same command continues from there"
    assert outcome.err.splitlines()[-1] == expected


def test_ranking_and_evaluating_stop_at_once_and_have_written_nothing(call, job, monkeypatch):
    def stop(*_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("utils.commands.ranks.estimate_ranks", stop)
    monkeypatch.setattr("utils.commands.evaluate.physical_cost", stop)
    before, handler = files_in(Path()), signal.signal(signal.SIGINT, signal.default_int_handler)
    for door in (["rank_generation.py", "--num_images", "20"], ["main.py", "evaluate"]):
        outcome = call(*door, *job.network)
        assert (outcome.code, outcome.out) == (130, "")
        assert outcome.err.endswith(": stopped by SIGINT: nothing was written\n")
    signal.signal(signal.SIGINT, handler)
    assert files_in(Path()) == before


def test_a_full_disk_is_one_sentence_and_costs_nothing(call, words, whole, disk_takes):
    """Each call finds the disk full at a write a little later than the call before."""
    refused, _ = refused_for_a_full_disk(call, words, disk_takes, range(50))
    assert refused >= {"checkpoints/last.pt", "log.jsonl"}
    assert_same_end(whole)


def test_a_file_that_the_disk_takes_half_of_is_not_there(call, words, whole, tmp_path):
    limit = 300_000  # bytes of a file, more than the curves have and less than a checkpoint
    process = fork(words, tmp_path, resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    process.join()
    assert process.exitcode == 2
    sentence = "cannot write job/checkpoints/last.pt (File too large): expected a writable place"
    assert Path("err").read_text().splitlines()[-1] == f"main.py prune: error: {sentence}"
    assert not list(Path("job/checkpoints").iterdir())
    Path("err").unlink()
    assert call("main.py", *words).code == 0
    assert_same_end(whole)
