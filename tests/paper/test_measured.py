"""The pages' results are what the kept runs say."""

import json

import pytest

from tests.paper.made_up_runs import summary, write_job, write_run
from utils.paper import measured, pages
from utils.paper.measured_runs import FOLDER, grouped, read_runs
from utils.paper.measured_tables import finding_text
from utils.paper.pages import read_block


def test_the_page_holds_what_the_kept_runs_say():
    assert read_block("measured") == measured.measured_text()
    assert read_block("finding") == finding_text(grouped(read_runs()))


def test_kept_runs_name_no_place_of_the_machine_they_were_made_on():
    for path in FOLDER.rglob("*"):
        assert path.is_dir() or path.suffix == ".json", f"{path} is no JSON"
        if path.is_file():
            assert '"/' not in json.dumps(json.loads(path.read_text())), path


@pytest.fixture
def text(tmp_path, monkeypatch):
    """The rendering of three seeds of rank and of one l1 run."""
    for seed, correct in enumerate((8000, 8010, 8050)):
        write_run(tmp_path, f"rank_{seed}", correct=correct, seed=seed)
    one = summary("l1", correct=8500, criterion="l1", last=8400, select_on="val")
    one["paper"] = {"arch": "resnet_56", "row": "50.0%", "verdict": "macs: differs by +1"}
    published = {"macs": "62.72M", "parameters": "0.49M", "top1_percent": "93.17"}
    one["paper"] |= {name: {"published": text} for name, text in published.items()}
    write_job(tmp_path / "resnet_20", "l1", {"summary.json": one})
    monkeypatch.setattr(measured, "read_runs", lambda: read_runs(tmp_path))
    return measured.measured_text()


def cells(text, *beginning):
    """The cells of the one table row that begins with `beginning`."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()]
    (found,) = [row for row in rows if tuple(row[: len(beginning)]) == beginning]
    return found[len(beginning) :]


def test_several_seeds_by_hand(text):
    # mean 80.2, standard deviation 0.2646, t = 4.3027: 80.2 -+ 0.657
    found = cells(text, "rank (2)", "0.40M (-60.0%)", "0.40M (-60.0%)", "5.0k (-75.0%)")
    assert found[:2] == ["90.00 -> 10.00 -> 80.20% ± 0.26", "79.54 to 80.86"]


def test_one_run_and_its_published_row_by_hand(text):
    assert cells(text, "l1 (1)", "0.40M (-60.0%)", "0.40M (-60.0%)", "5.0k (-75.0%)") == [
        *("90.00 -> 10.00 -> 85.00%", "84.29 to 85.69"),
    ]
    assert cells(text, "*paper, 50.0%*") == ["62.72M", "", "0.49M", "93.26 -> 93.17%", ""]


def test_how_runs_were_made(text):
    assert cells(text, "2: resnet_20, rank", "0, 1, 2") == [
        *("50,000 of photos", "2", "rate 0.02, cosine, batch 128", "last epoch", "10"),
        *("a CPU, 1 thread", "torch 2.15.0, commit 0123"),
    ]
    assert "best on held-out train images (epoch 2)" in text
    assert "2: resnet_20, rank (and with `--seed` 1, 2):\n\n    python main.py --seed 0" in text


def test_job_folders_are_taken_in_and_the_readme_renewed(tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    names = ("measured", "finding")
    readme.write_text("".join(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n" for name in names))
    kept = tmp_path / "kept"
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(measured, "read_runs", lambda: read_runs(kept))
    take_in = measured.take_in
    monkeypatch.setattr(measured, "take_in", lambda job: take_in(job, kept))
    job = write_run(tmp_path / "jobs", "rank_0", correct=8000)
    assert measured.main([str(job)]) == 0
    assert "80.00%" in readme.read_text()
    assert measured.main([str(tmp_path / "absent")]) == 2
    assert "absent holds no summary.json: expected the folder" in capsys.readouterr().err
