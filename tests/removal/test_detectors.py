"""Detectors: trained on images and what they hold, and what they find depends on the numbers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from tests.networks import random_masks, randomized
from utils.graph.channel_graph import trace_channels
from utils.library import prune
from utils.metrics.cost import physical_cost
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters

IMAGE = torch.rand(1, 3, 8, 8)
HELD = [{"boxes": torch.tensor([[1.0, 2.0, 5.0, 6.0], [0.0, 0.0, 3.0, 4.0]])}]


class Detector(nn.Module):
    """Gives boxes of three kinds in eval mode, as the numbers decide, and a loss in train mode."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.score, self.box = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1)
        self.kind = nn.Linear(8, 3)

    def forward(self, images, held=None):
        maps = self.body(images)
        score, box = self.score(maps).flatten(1), self.box(maps).flatten(2).mT
        if self.training and held is None:
            raise ValueError("targets should not be none")
        if self.training:
            true = [one["boxes"] for one in held]
            if any((boxes[:, 2:] <= boxes[:, :2]).any() for boxes in true):
                raise ValueError("boxes have no height or no width")
            apart = [f.mean(0) - t.mean(0) for f, t in zip(box, true, strict=True)]
            return {"box": torch.stack(apart).abs().sum()}
        found = [self.kept(*one) for one in zip(score, box, strict=True)]
        pooled = zip(maps.mean((2, 3)), found, strict=True)
        rows = torch.cat([means * boxes.mean(1, keepdim=True) for means, boxes in pooled])
        return (torch.cat(found)[:, None] * self.kind(rows)[..., None]).reshape(-1, 4)

    def kept(self, score, box):
        """Return boxes in turns, of which the numbers decide how many there are."""
        order = score.topk(20).indices
        boxes = box[order].sigmoid()
        for _ in range(int(1000 * boxes.sum()) % 7):
            boxes = boxes[boxes[:, 0] > boxes[:, 0].min()]
        return boxes


class Pyramid(nn.Module):
    """Maps of two sizes."""

    out_channels = 8

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.large, self.small = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, images):
        maps = self.body(images)
        return {"large": self.large(maps), "small": self.small(F.max_pool2d(maps, 4))}


@pytest.fixture
def detector():
    torch.manual_seed(0)
    return randomized(Detector(), seed=0).float()


@torch.no_grad()
def test_removed_is_masked_in_what_it_finds_and_in_its_loss(detector):
    graph = trace_channels(detector, (IMAGE, HELD))
    for seed in range(4):
        masks = random_masks({"body.0": 8}, 0.5, seed=seed)
        small = remove_filters(detector, graph, masks).double()
        masked = copy.deepcopy(detector)
        ChannelMasks(masked, graph, masks).apply()
        masked, images = masked.double(), torch.rand(3, 3, 8, 8, dtype=torch.float64)
        assert len(small.body[0].weight) == masks["body.0"].sum()
        torch.testing.assert_close(small.eval()(images), masked.eval()(images))
        losses = [model.train()(images, 3 * HELD)["box"] for model in (small, masked)]
        torch.testing.assert_close(*losses)


def test_what_images_hold_is_no_image_of_the_counts(detector):
    small = prune(detector, (IMAGE, HELD), criterion="l1", ratio=0.5)
    assert small.costs["dense"]["macs"] == physical_cost(detector, IMAGE).macs
    assert small.costs["pruned"]["macs"] == physical_cost(small.model, IMAGE).macs


def test_without_what_images_hold_training_cannot_be_proven(detector):
    message = "removal cannot be proven in train mode, where Detector does not run on the example"
    with pytest.raises(ValueError, match=message):
        prune(detector, IMAGE, criterion="l1", ratio=0.5)


@torch.no_grad()
def test_channels_are_followed_through_regions_of_maps_of_several_sizes():
    torch.manual_seed(0)
    anchors = AnchorGenerator(((8,), (24,)), ((1.0,), (1.0,)))
    pool = MultiScaleRoIAlign(["large", "small"], 2, 2)
    sizes = {"min_size": 32, "max_size": 32, "rpn_post_nms_top_n_train": 50}
    model = FasterRCNN(
        Pyramid(), 3, rpn_anchor_generator=anchors, box_roi_pool=pool, box_score_thresh=0.0, **sizes
    )
    model = randomized(model, seed=0).float()
    example = torch.rand(1, 3, 32, 32), [{**HELD[0], "labels": torch.tensor([1, 2])}]
    small = prune(model, example, criterion="l1", ratio=0.5, group=True).model
    maps = small.backbone
    assert maps.large.out_channels == maps.small.out_channels == 4
    assert small.roi_heads.box_head.fc6.in_features == 4 * 2 * 2
    assert small.roi_heads.box_head.fc6.out_features == 512
