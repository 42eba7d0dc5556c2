"""How a deployed network leaves channels that do not line up: copied, as zeros, or given back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch.nn as nn

from utils.options.prune_options import PruneConfig
from utils.planning.budget import timing_of, to_time
from utils.planning.plan import Planned
from utils.pruning.giving_back import given_back
from utils.pruning.plan import PruningPlan
from utils.removal.record import ALIGN
from utils.removal.surgery import remove_filters
from utils.runs.job_folder import JobFolder
from utils.runs.json_files import read_json
from utils.runs.notes import note
from utils.runs.regular_file import is_there
from utils.runs.schema import TEXT, MapOf, number, one_of, whole

_SAME = 1.03  # times as long: no longer, but for noise
_KEPT = {  # the schema of align.json
    "align": one_of("blocks", *ALIGN),
    "block": whole(0),
    "latency_ms": MapOf(number(0)),
    "runtime": TEXT,
}


def aligned(config: PruneConfig, planned: Planned, job: JobFolder) -> Planned:
    """Return what is planned as `--align` has it, with `aligned_by`: how that was chosen.

    What the job folder has of it is taken as it is, so that a run that is taken up stays the same.
    """
    if config.alignment == "compact" or not planned.plan.masks():
        return planned
    if is_there(job.align) and not config.dry_run:
        found = read_json(job.align, _KEPT, "how channels are left that do not line up")
        return _as_found(planned, found)
    found = {"align": config.alignment, "block": 0, "latency_ms": {}, "runtime": config.runtime}
    if config.alignment != "zeros":
        timed = to_time(config, planned.dense)
        found["block"] = timing_of(config).block(timed.model, timed.image)
    if config.alignment == "time":
        found |= _fastest(config, planned, found["block"])
    return _as_found(planned, found)


def _as_found(planned: Planned, found: Mapping[str, Any]) -> Planned:
    plan, align = _plans(planned, found["block"])[found["align"]]
    dense, slim = planned.dense, planned.slim
    if (plan, align) != (planned.plan, planned.align):
        slim = remove_filters(dense.model, dense.graph, plan.masks(), align=align)
    uniform = planned.uniform and plan == planned.plan
    how = {"align": align, "aligned_by": found, "uniform": uniform}
    return replace(planned, plan=plan, slim=slim, **how)


def _plans(planned: Planned, block: int) -> dict[str, tuple[PruningPlan, str]]:
    """Return {alignment: (the plan, how its removal aligns)}, that which keeps most first.

    A block of 0 was not looked for: then nothing is given back.
    """
    plans = {align: (planned.plan, align) for align in ALIGN}
    if not block:
        return plans
    how = planned.dense.model, planned.graph, planned.scores
    plan = given_back(planned.plan, *how, block)
    return {"blocks": (plan, "zeros"), **plans}


def _fastest(config: PruneConfig, planned: Planned, block: int) -> dict[str, Any]:
    """Return the alignment of the least time; of those that take no longer, that keeps most."""
    dense, plans = to_time(config, planned.dense), _plans(planned, block)
    models: dict[str, nn.Module] = {}
    for name, (plan, align) in plans.items():
        if name == "blocks" and plan == planned.plan:  # there is nothing to give back
            continue
        slim = remove_filters(dense.model, dense.graph, plan.masks(), align=align, check=False)
        if not any(_said(slim) == _said(other) for other in models.values()):
            models[name] = slim
    first, *others = models
    if not others:
        return {"align": first}
    timed = timing_of(config).compare({"dense": dense.model, **models}, dense.image)
    times = {name: latency.median_ms for name, latency in timed.items()}
    note("--align time: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in times.items()))
    least = min(times[name] for name in models)
    chosen = next(name for name in models if times[name] <= _SAME * least)
    return {"align": chosen, "latency_ms": times}


def _said(model: nn.Module) -> list[tuple[type, str]]:
    """Return what a network's layers say of themselves: their kinds and sizes."""
    return [(type(module), module.extra_repr()) for module in model.modules()]
