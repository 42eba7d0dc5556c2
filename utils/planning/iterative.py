"""The iterative schedule: prune a part, fine-tune, and so on, until the rates are reached."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch.nn as nn
from torch import Tensor

from utils.data.images import check_enough, draw_images
from utils.metrics.accuracy import ACCURACY, as_dicts
from utils.metrics.difference import check_removed
from utils.options.images import Images
from utils.options.prune_options import PruneConfig
from utils.planning.finetune import Finetuned, Finetuning, step_name
from utils.planning.plan import Planned, by_ranks, planner
from utils.pruning.plan import PLAN, PruningPlan
from utils.pruning.rescoring import below_the_rest, rescore_filters
from utils.rank.estimation import estimate_ranks
from utils.rank.rank_files import read_manifest
from utils.rank.rank_layers import layers_at
from utils.removal.held_zeros import held_zeros
from utils.removal.masks import ChannelMasks, ParameterMasks
from utils.removal.restoration import restore_weights
from utils.removal.surgery import remove_filters
from utils.runs import processes
from utils.runs.atomic_write import write_tensors
from utils.runs.checkpoint import load_file
from utils.runs.choices import RANK_CRITERIA
from utils.runs.regular_file import is_there
from utils.runs.schema import MapOf, Optional, check, whole
from utils.training.loop import FitResult
from utils.training.stage import read_progress

_STEPS = [  # the schema of steps.pt
    {
        "step": whole(1),
        "filters_removed": whole(0),
        "pruned": MapOf(ACCURACY),
        "plan": PLAN,
        "recalibrated": Optional(MapOf(ACCURACY)),
        "finetuned": Optional(MapOf(ACCURACY)),
        "best_epoch": Optional(whole(1)),
        "epochs": Optional(whole(1)),
    }
]


def check_steps_fit(config: PruneConfig, plan: PruningPlan, images: Images) -> None:
    """Refuse more steps than there are filters to remove, or to rank on more images than there are.

    Raises:
        ValueError: so it is.
    """
    most = max(layer.removed for layer in plan.layers)
    if config.steps > most:
        raise ValueError(
            f"--steps is {config.steps}: expected at most {most}, the filters that go of the conv "
            "that loses most"
        )
    if config.rerank and config.criterion in RANK_CRITERIA:
        check_enough(images.train, config.num_images, f"--num_images is {config.num_images}")


@dataclass(frozen=True)
class IterativePruning:
    """Pruning and fine-tuning in `config.steps` steps.

    Of the n filters that a conv loses in the end, ceil(n * t / N) are gone after step t of N. The
    dense network's scores say which or, with `config.rerank`, from the second step on those of the
    network as it then is. What is gone stays gone; a step's best weights go on to the next.
    """

    config: PruneConfig
    planned: Planned
    tuning: Finetuning

    def run(self) -> Finetuned:
        """Go all steps.

        `steps.pt` holds the plans up to the step under way before that trains, so that a run that
        was stopped goes on with the same.

        Raises:
            ValueError: the rank files changed since the run began.
        """
        job, graph, steps = self.tuning.job, self.planned.graph, self.config.steps
        progress = read_progress(job)
        rows = self._rows(begun=progress is not None)
        finished = progress.finished if progress else ()
        model = copy.deepcopy(self.planned.dense.model)  # of dense shapes all the way
        plan = self._plan(1, model, {})
        if rows and rows[0]["plan"] != plan.as_list():
            raise ValueError(
                f"{job.steps} holds another first step: the rank files changed since the run "
                f"began; give another --job_dir, or delete {job.path} to start again"
            )
        behind = sum(step_name(step, steps) in finished for step in range(1, steps + 1))
        if len(rows) < behind:
            raise ValueError(
                f"{job.steps} holds {len(rows)} steps: expected at least the {behind} that are over"
            )
        for step in range(1, steps + 1):
            if step_name(step, steps) in finished:
                continue
            ahead = step > len(rows)
            if not ahead:
                plan = PruningPlan.from_list(rows[step - 1]["plan"])
            elif step > 1:
                plan = self._plan(step, model, plan.masks())
            trained, masks = self._pruned(model, plan)
            if ahead:
                rows.append(self._row(step, plan, model))
            self.tuning.recalibrate(trained)
            if ahead:
                if self.config.recalibrates:
                    rows[-1]["recalibrated"] = as_dicts(self.tuning.images.accuracies(trained))
                write_tensors(job.steps, rows)
            result = self.tuning.step(trained, masks, step, steps)
            rows[step - 1] |= _outcome(result)
            if trained is not model:
                restore_weights(model, graph, plan.masks(), trained)
        slim = remove_filters(model, graph, plan.masks(), align=self.planned.align)
        planned = replace(self.planned, plan=plan, slim=slim)
        steps = ({name: row[name] for name in row if name != "plan"} for row in rows)
        return Finetuned(trained, result, planned, tuple(steps))

    def _rows(self, *, begun: bool) -> list[dict[str, Any]]:
        """Return what steps.pt holds of the steps up to the one under way; once begun, it must."""
        path = self.tuning.job.steps
        if not begun and not is_there(path):
            return []
        rows, first = load_file(path), self.planned.plan.num_filters()
        check(rows, _STEPS, f"{path}", "the steps of a run")
        for row in rows:
            try:
                found = PruningPlan.from_list(row["plan"]).num_filters()
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            if found != first:
                raise ValueError(f"{path} holds a plan of other convs: expected this network's")
        return rows

    def _plan(self, step: int, model: nn.Module, gone: Mapping[str, Tensor]) -> PruningPlan:
        """Plan what is gone after `step`, masks `gone` before it; `model` is that network."""
        scores = self.planned.scores
        if self.config.rerank and step > 1:
            scores = below_the_rest(self._scores(model, gone), gone)
        how = {"group": self.config.group, "round_to": self.config.round_to}
        part = Fraction(step, self.config.steps)
        plan = planner(self.planned.dense, scores, **how)(self.planned.rates, part)
        kept = {layer.conv: layer.kept for layer in plan.layers}
        processes.check_same(f"the plan of step {step}", kept)
        return plan

    def _scores(self, model: nn.Module, gone: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Score the masked network as it is, as the dense one was scored."""
        criterion = self.config.criterion
        if criterion not in RANK_CRITERIA:
            found = rescore_filters(model, self.planned.graph, criterion, gone)
            return {conv: found[conv].cpu() for conv in self.planned.scores}
        ranks = by_ranks(criterion, self._ranks(model))
        others = [conv for conv in self.planned.scores if conv not in ranks]
        if others:
            linear = self.config.linear_criterion
            found = rescore_filters(model, self.planned.graph, linear, gone)
            ranks |= {conv: found[conv].cpu() for conv in others}
        return {conv: ranks[conv] for conv in self.planned.scores}

    def _ranks(self, model: nn.Module) -> dict[str, Tensor]:
        """Rank the filters on plain train images drawn by the seed, at the rank files' sites."""
        sites = (read_manifest(self.config.rank_folder) or {}).get("sites", "official")
        layers = layers_at(self.planned.dense, sites).layers
        site_of = {x.conv: x.site for x in layers if x.conv in self.planned.scores and x.site}
        images = self.tuning.images
        drawn = draw_images(images.train, self.config.num_images, self.config.seed)
        batches = images.evaluation_batches(drawn)
        found = estimate_ranks(model, set(site_of.values()), (batch for batch, _ in batches))
        return {conv: found[site].mean.float() for conv, site in site_of.items()}

    def _pruned(
        self, model: nn.Module, plan: PruningPlan
    ) -> tuple[nn.Module, ParameterMasks | None]:
        """Mask `model`, in place; return the network to train, and the masks that it then needs."""
        masks = ChannelMasks(model, self.planned.graph, plan.masks())
        masks.apply()
        if self.config.mode == "mask":
            return model, masks
        removal = model, self.planned.graph, plan.masks()
        slim = remove_filters(*removal, align=self.planned.align)
        check_removed(model, slim, self.tuning.images.first_batch(self.tuning.images.test))
        return slim, held_zeros(*removal, slim)

    def _row(self, step: int, plan: PruningPlan, pruned: nn.Module) -> dict[str, Any]:
        return {
            "step": step,
            "filters_removed": sum(layer.removed for layer in plan.layers),
            "pruned": as_dicts(self.tuning.images.accuracies(pruned)),
            "plan": plan.as_list(),
        }


def _outcome(result: FitResult) -> dict[str, Any]:
    """Return what a step's fine-tuning came to."""
    return {
        "finetuned": as_dicts(result.best),
        "best_epoch": result.best_epoch + 1,
        "epochs": len(result.epochs),
    }
