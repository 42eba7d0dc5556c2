"""A disk that is full at any moment is one sentence, and the run then ends as if it never was."""

from pathlib import Path

import pytest

from tests.command_lines import files_in, refused_for_a_full_disk

ITERATIVE = ["--ratio", "0.3", "--epochs", "1", "--schedule", "iterative", "--steps", "2"]
SAME = {  # what each run leaves that is the same whenever it was stopped
    "iterative": ("log.jsonl", "plan.json", "config.json", "pruned.pt", "checkpoints/best.pt"),
    "scan": ("log.jsonl", "scan.csv", "config.json"),
}
REFUSED = {  # what the disk is too full for at one of the moments
    "iterative": {"config.json", "log.jsonl", "checkpoints/steps.pt", "checkpoints/last.pt"},
    "scan": {"config.json", "log.jsonl", "summary.json"},
}
STRIDE = {"iterative": 2, "scan": 1}  # writes by which each call gets further


@pytest.fixture
def words(job, request) -> list[str]:
    if request.param == "iterative":
        return ["prune", *job.pruning, *ITERATIVE]
    return ["scan", *job.network, "--criterion", "l1", "--rates", "0.5", "--num_images", "4"]


@pytest.mark.parametrize(("words", "kind"), [(kind, kind) for kind in SAME], indirect=["words"])
def test_a_full_disk_is_one_sentence_and_costs_nothing(call, words, kind, disk_takes, quick):
    """Each call finds the disk full at a later write than the call before."""
    disk_takes(10**4)
    whole = call("main.py", *words, "--job_dir", "whole").json
    words = [*words, "--job_dir", "job"]
    amounts = range(0, 100, STRIDE[kind])
    refused, outcome = refused_for_a_full_disk(call, words, disk_takes, amounts)
    assert refused >= REFUSED[kind]
    found, expected = files_in(Path("job")), files_in(Path("whole"))
    for name in SAME[kind]:
        assert found[name] == expected[name], name
    assert outcome.json.keys() == whole.keys()
