"""Laws of the kept runs: what is taken in, what is one group, what is refused."""

import json

import pytest

from tests.paper.made_up_runs import summary, write_job, write_run
from utils.paper.measured_runs import grouped, read_runs, take_in

LATENCY = {"latency": [{"batch_size": 1, "median_ms": 8.0}]}


def timed(checkpoint="result/resnet_20/rank_0/pruned.pt"):
    """What `evaluate --against` prints of the run's network, or of another."""
    return LATENCY | {"against": LATENCY | {"checkpoint": checkpoint}}


def take_in_rank(tmp_path, name="rank_0", **files):
    """Take in a run; `files` are what its job holds beside or instead of its summary."""
    files = {"summary": summary(name, correct=8000)} | files
    files = {f"{key}.json": value for key, value in files.items() if value is not None}
    return take_in(write_job(tmp_path / "jobs", name, files), tmp_path / "kept")


def test_json_alone_is_taken_in(tmp_path):
    place = take_in_rank(tmp_path, latency=timed())
    assert place == tmp_path / "kept/resnet_20/rank_0"
    assert sorted(path.name for path in place.iterdir()) == ["latency.json", "summary.json"]
    for name in ("latency.json", "summary.json"):
        job = tmp_path / "jobs/rank_0" / name
        assert json.loads((place / name).read_text()) == json.loads(job.read_text())


def test_what_is_timed_later_is_added(tmp_path):
    take_in_rank(tmp_path)
    (tmp_path / "jobs/rank_0/latency.json").write_text(json.dumps(timed()))
    take_in(tmp_path / "jobs/rank_0", tmp_path / "kept")
    (run,) = read_runs(tmp_path / "kept")
    assert run.speedups == {"1 image": 1.0}


def test_another_run_of_that_name_does_not_replace_it(tmp_path):
    place = take_in_rank(tmp_path)
    before = (place / "summary.json").read_text()
    other = write_job(tmp_path, "rank_0", {"summary.json": summary("rank_0", correct=1)})
    with pytest.raises(ValueError, match=r"kept/resnet_20/rank_0 holds another run: expected"):
        take_in(other, tmp_path / "kept")
    assert (place / "summary.json").read_text() == before


NOT_TUNED = summary("rank_0", correct=1) | {"accuracy": {"dense": {"test": {}}}}
UNTIMED = {key: value for key, value in summary("rank_0", correct=1).items() if key != "latency"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"summary": None}, r"rank_0 holds no summary\.json: expected the"),
        ({"summary": {"arch": "resnet_20"}}, r"json lacks 'criterion': expected the summary of a"),
        ({"summary": UNTIMED}, r"summary\.json lacks 'latency': expected the summary of a run"),
        (
            {"summary": NOT_TUNED},
            r"summary\.json lacks 'correct' in 'accuracy.dense.test': expected the summary of",
        ),
        ({"latency": {}}, r"latency\.json lacks 'against': expected what"),
        (
            {"latency": timed("result/resnet_20/l1_0/pruned.pt")},
            r"is of result/resnet_20/l1_0/pruned\.pt: expected result/resnet_20/rank_0/pruned\.pt",
        ),
    ],
)
def test_what_is_no_evidence_is_refused(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        take_in_rank(tmp_path, **files)
    assert not (tmp_path / "kept").exists()


def test_broken_json_is_refused(tmp_path):
    job = write_job(tmp_path, "rank_0", {})
    (job / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"summary\.json is not JSON"):
        take_in(job, tmp_path / "kept")


def groups_of(folder):
    return [[run.place.name for run in group.runs] for group in grouped(read_runs(folder))]


def test_seeds_make_a_group_and_nothing_else_does(tmp_path):
    write_run(tmp_path, "a", correct=8000, seed=1)
    write_run(tmp_path, "b", correct=8100, seed=0)
    write_run(tmp_path, "l1", correct=8000, criterion="l1")
    write_run(tmp_path, "longer", correct=8000, epochs=3)
    write_run(tmp_path, "rate", correct=8000, lr=0.01)
    write_run(tmp_path, "ranks", correct=8000, rank_conv="other")
    write_run(tmp_path, "scratch", correct=8000, init="scratch")
    write_run(tmp_path, "unpruned", correct=8000, removed=False)
    found = groups_of(tmp_path)
    assert found[0] == ["unpruned"] and found[-1] == ["longer"]
    assert sorted(found) == [
        *(["b", "a"], ["l1"], ["longer"], ["ranks"], ["rate"], ["scratch"], ["unpruned"]),
    ]


def test_an_option_that_older_runs_lack_does_not_split_a_group(tmp_path):
    write_run(tmp_path, "old", correct=8000, seed=0)
    write_run(tmp_path, "new", correct=8000, seed=1, init="pruned", steps=1)
    assert groups_of(tmp_path) == [["old", "new"]]


def test_the_same_run_does_not_count_twice(tmp_path):
    write_run(tmp_path, "one", correct=8000)
    write_run(tmp_path, "two", correct=8000)
    with pytest.raises(ValueError, match=r"/one and .*/two are the same run twice: expected anot"):
        groups_of(tmp_path)
