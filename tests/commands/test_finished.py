"""A finished run that is called again says so and shows its summary, without doing anything."""

from pathlib import Path

from tests.command_lines import files_in


def test_a_finished_run_shows_its_summary_and_opens_no_images(call, job, quick, monkeypatch):
    words = ("main.py", "prune", *job.pruning, "--ratio", "0.5", "--job_dir", "run")
    first = call(*words).json
    before = files_in(Path("run"))
    monkeypatch.setattr("utils.planning.branch_changes.open_images", None)  # calling it is an error
    again = call(*words)
    assert again.json == first and files_in(Path("run")) == before
    assert "already finished" in again.err


def test_a_finished_folder_with_other_options_is_refused(call, job, quick):
    words = ("main.py", "prune", *job.pruning, "--ratio", "0.5", "--job_dir", "run")
    assert call(*words).code == 0
    other = call(*words, "--seed", "1")
    assert other.code == 2 and "was started with seed 0, not 1" in other.err
