"""What options choose from is what there is."""

from utils.metrics.runtimes import RUNTIMES
from utils.pruning.criteria import WEIGHT_CRITERIA
from utils.runs import choices
from utils.runs.exported import FORMATS


def test_every_word_that_options_know_has_something_behind_it():
    assert tuple(WEIGHT_CRITERIA) == choices.OF_WEIGHTS
    assert tuple(RUNTIMES) == choices.RUNTIMES
    assert tuple(FORMATS) == choices.FORMATS
