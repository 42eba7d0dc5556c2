"""What a scan answers recalibrated is what a masked copy of the network answers recalibrated."""

import copy

import pytest
import torch

from utils.metrics.accuracy import measure_accuracy
from utils.options.images import open_images
from utils.options.networks import open_prunable
from utils.options.scan_options import ScanConfig
from utils.planning.scanning import Scanning, chosen_images, plan_scan
from utils.pruning.magnitude import WeightMasks
from utils.removal.masks import ChannelMasks
from utils.runs.options import parse
from utils.training.recalibration import recalibrate, statistics_of

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(params=[["--criterion", "l1"], ["--granularity", "weight"]])
def scanning(job, request):
    words = [*job.network, *request.param, "--split", "test", "--rates", "0.3,0.6"]
    config = parse(ScanConfig, [*words, "--recalibrate", "20"], prog="", description="")
    network = open_prunable(config)
    images = open_images(config, network)
    return Scanning(plan_scan(config, network), images, chosen_images(config, images))


def test_recalibrated_answers_are_those_of_a_masked_copy(scanning):
    model, images, config = scanning.model, scanning.images, scanning.plan.config
    before = copy.deepcopy(model.state_dict())
    whole = copy.deepcopy(model)
    recalibrate(whole, images.recalibration_batches(20, config.seed))
    for unit, masks_of in scanning.plan.wanted[:4]:
        found = scanning._measure(unit, masks_of, _NoCost())
        for point, masks in zip(found, masks_of.values(), strict=True):
            masked = copy.deepcopy(model)
            graph = scanning.plan.dense.graph
            by_weight = config.by_weight
            how = WeightMasks(masked, masks) if by_weight else ChannelMasks(masked, graph, masks)
            how.apply()
            recalibrate(masked, images.recalibration_batches(20, config.seed))
            for name, value in statistics_of(masked).items():
                if torch.equal(value, whole.get_buffer(name)):  # it reads what it read before
                    masked.get_buffer(name).copy_(model.get_buffer(name))
            answers = measure_accuracy(masked, images.evaluation_batches(scanning.chosen))
            assert point.recalibrated_correct == answers.correct
            assert point.recalibrated_loss == pytest.approx(answers.loss, rel=1e-5)
            assert point.answered == (point.recalibrated_correct, point.recalibrated_loss)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


class _NoCost:
    """Costs of a network whose layers cost nothing."""

    layers, macs = (), 0
