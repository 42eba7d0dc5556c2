"""The benchmark of ranking: all ways on the same maps, none finds another rank."""

import json

import pytest

from utils.benchmarks import rank_benchmark
from utils.benchmarks.rank_benchmark import MEASURED, MILLION, kept_text, main
from utils.benchmarks.rank_timing import LOOP, REFERENCE
from utils.paper import pages
from utils.paper.pages import read_block

SHAPES = ["--arch", "resnet_8", "--untrained", "--dataset", "shapes"]
QUICK = ["--num_images", "3", "--batch_size", "2", "--repeats", "2", "--loop_images", "1"]


def test_all_ways_find_the_same_ranks_of_the_same_maps(capsys):
    assert main([*SHAPES, *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    per_image = 16 + 2 * (16 + 32 + 64)
    assert (found["images"], found["maps"]) == (3, 3 * per_image)
    assert {LOOP, REFERENCE, "map_ranks (torch)"} <= found["ways"].keys()
    for name, row in found["ways"].items():
        assert row["maps_timed"] == per_image * (1 if name == LOOP else 3)
        assert row["seconds"] > 0
        assert row["mismatches"] == 0 or "eigvalsh" in name  # which does not round to float32
    assert found["ways"][REFERENCE]["times_as_fast"] == 1
    assert found["forward_seconds"] > 0 and found["job_seconds"] > 0
    assert all(count < 0.05 * found["maps"] for count in found["left_to_lapack"].values())


def test_the_text_is_a_table_with_what_it_was_measured_on(capsys):
    assert main([*SHAPES, "--num_images", "1", "--repeats", "1", "--loop_images", "0"]) == 0
    text = capsys.readouterr().out
    assert "map_ranks (torch)" in text and "0 of 240" in text and LOOP not in text
    assert "resnet_8 (untrained), 1 images of shapes" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeats", "0"], "--repeats is 0: expected at least 1"),
        (["--num_images", "99999"], "99999 images to rank on: expected at most the"),
    ],
)
def test_bad_input_is_one_sentence(words, message, capsys):
    assert main([*SHAPES, *words]) == 2
    assert message in capsys.readouterr().err


def test_the_page_holds_the_tables_of_the_kept_results():
    assert read_block("rank_benchmark") == kept_text(json.loads(MEASURED.read_text()).values())


def test_a_million_maps_were_ranked_and_none_found_another_rank():
    kept = json.loads(MEASURED.read_text()).values()
    assert any(result["maps"] >= MILLION for result in kept)
    for result in kept:
        for name, row in result["ways"].items():
            assert row["mismatches"] == 0 or "eigvalsh" in name


def test_a_result_is_kept_and_shown(tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- rank_benchmark: begin -->\n<!-- rank_benchmark: end -->\n")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(rank_benchmark, "MEASURED", tmp_path / "kept.json")
    words = ["--num_images", "1", "--repeats", "1", "--loop_images", "0", "--write"]
    assert main([*SHAPES, *words]) == 0
    text = capsys.readouterr().out.strip()
    assert text in readme.read_text()
    assert list(json.loads((tmp_path / "kept.json").read_text())) == ["resnet_8, 1 images"]
