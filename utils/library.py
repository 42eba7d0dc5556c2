"""The names for use from Python: trace, plan, mask, remove, measure, write and load a network."""

from utils.graph.branches import Branch, branches
from utils.graph.channel_graph import ChannelGraph, trace_channels
from utils.graph.groups import ChannelGroup, channel_groups, describe
from utils.metrics.cost import Cost, LayerCost, PaperCost, paper_cost, physical_cost
from utils.options.networks import load_network
from utils.planning.direct import Pruned, prune
from utils.pruning.group_plan import plan_groups
from utils.pruning.plan import LayerPlan, PruningPlan
from utils.pruning.scores import score_filters
from utils.pruning.sorting import sort_channels
from utils.rank.matrix_rank import map_ranks
from utils.removal.masks import ChannelMasks
from utils.removal.network_file import load_removed, write_removed
from utils.removal.restoration import restore_weights
from utils.removal.surgery import remove_filters
from utils.removal.zero_filters import Staying, ZeroRemoval, remove_zero_filters
from utils.training.recalibration import recalibrate

__all__ = [
    "Branch",
    "ChannelGraph",
    "ChannelGroup",
    "ChannelMasks",
    "Cost",
    "LayerCost",
    "LayerPlan",
    "PaperCost",
    "Pruned",
    "PruningPlan",
    "Staying",
    "ZeroRemoval",
    "branches",
    "channel_groups",
    "describe",
    "load_network",
    "load_removed",
    "map_ranks",
    "paper_cost",
    "physical_cost",
    "plan_groups",
    "prune",
    "recalibrate",
    "remove_filters",
    "remove_zero_filters",
    "restore_weights",
    "score_filters",
    "sort_channels",
    "trace_channels",
    "write_removed",
]
