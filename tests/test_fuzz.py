"""Bad options and bad files, drawn by a seed: one sentence, exit code 2, and nothing lost."""

import pytest

from tests import fuzz

LINES = 60


@pytest.mark.parametrize("seed", [0])
def test_bad_lines_and_files_are_refused_in_one_sentence_and_nothing_is_lost(tmp_path, seed):
    _, complaints = fuzz.run(LINES, seed, tmp_path)
    assert complaints == []
