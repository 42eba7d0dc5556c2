"""Laws of the kept runs: what is taken in, what is one group, what is refused."""

import json

import pytest

from tests.paper.made_up_runs import evaluation, summary, write_job, write_run
from utils.paper.measured_runs import grouped, read_runs, take_in


def take_in_rank(tmp_path, name="rank_0", **files):
    """Take in a run with an evaluation on other images; `files` change what the job holds."""
    made = {
        "summary": summary(name, correct=8000),
        "on_paintings": evaluation(f"result/resnet_20/{name}/pruned.pt", correct=700),
    }
    files = {f"{key}.json": value for key, value in (made | files).items() if value is not None}
    return take_in(write_job(tmp_path / "jobs", name, files), tmp_path / "kept")


def test_json_alone_is_taken_in(tmp_path):
    place = take_in_rank(tmp_path)
    assert place == tmp_path / "kept/resnet_20/rank_0"
    assert sorted(path.name for path in place.iterdir()) == ["on_paintings.json", "summary.json"]
    for name in ("on_paintings.json", "summary.json"):
        job = tmp_path / "jobs/rank_0" / name
        assert json.loads((place / name).read_text()) == json.loads(job.read_text())


def test_a_run_knows_its_accuracies_on_all_test_images(tmp_path):
    take_in_rank(tmp_path)
    dense = {"on_paintings.json": evaluation("dense.th", correct=850, form="dense")}
    other = {"on_drawings.json": evaluation("other.th", correct=1, form="dense")}
    take_in(write_job(tmp_path / "jobs", "dense", dense), tmp_path / "kept")
    take_in(write_job(tmp_path / "jobs", "another", other), tmp_path / "kept")
    (run,) = read_runs(tmp_path / "kept")
    assert {name: found.correct for name, found in run.tuned.items()} == {
        "photos": 8000,
        "paintings": 700,
    }
    assert {name: found.correct for name, found in run.dense.items()} == {
        "photos": 9000,
        "paintings": 850,
    }


def test_what_is_evaluated_later_is_added(tmp_path):
    take_in_rank(tmp_path, on_paintings=None)
    found = evaluation("result/resnet_20/rank_0/pruned.pt", correct=700)
    (tmp_path / "jobs/rank_0/on_paintings.json").write_text(json.dumps(found))
    take_in(tmp_path / "jobs/rank_0", tmp_path / "kept")
    (run,) = read_runs(tmp_path / "kept")
    assert run.tuned["paintings"].correct == 700


def test_another_run_of_that_name_does_not_replace_it(tmp_path):
    place = take_in_rank(tmp_path)
    before = (place / "summary.json").read_text()
    other = write_job(tmp_path, "rank_0", {"summary.json": summary("rank_0", correct=1)})
    with pytest.raises(ValueError, match=r"kept/resnet_20/rank_0 holds another run: expected"):
        take_in(other, tmp_path / "kept")
    assert (place / "summary.json").read_text() == before


NOT_TUNED = summary("rank_0", correct=1) | {"accuracy": {"dense": {"test": {}}}}
UNTIMED = {key: value for key, value in summary("rank_0", correct=1).items() if key != "latency"}
EVALUATED = evaluation("result/resnet_20/rank_0/pruned.pt", correct=700)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"summary": None, "on_paintings": None}, r"rank_0 holds no summary\.json: expected the"),
        ({"summary": {"arch": "resnet_20"}}, r"json lacks 'criterion': expected the summary of a"),
        ({"summary": UNTIMED}, r"summary\.json lacks 'latency': expected the summary of a run"),
        (
            {"summary": NOT_TUNED},
            r"summary\.json lacks 'correct' in 'accuracy.dense.test': expected the summary of",
        ),
        ({"on_paintings": {"correct": 1}}, r"on_paintings\.json lacks 'dataset': expected what"),
        (
            {"on_paintings": EVALUATED | {"dataset": "paintings train"}},
            r"on_paintings\.json is of paintings train images: expected test images",
        ),
        (
            {"on_paintings": EVALUATED | {"checkpoint": "result/resnet_20/l1_0/pruned.pt"}},
            r"is of result/resnet_20/l1_0/pruned\.pt: expected result/resnet_20/rank_0/pruned\.pt",
        ),
        (
            {"on_paintings": EVALUATED | {"normalization": "none"}},
            r"is of images normalized as none: expected imagenet",
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
