"""The options of pruning in steps."""

from dataclasses import dataclass

from utils.options.score_options import ScoreOptions
from utils.runs.choices import BLIND_CRITERIA
from utils.runs.options import option, refuse_below, refuse_given


@dataclass(frozen=True)
class StepOptions(ScoreOptions):
    """How `--schedule iterative` comes to its rates."""

    steps: int = option(5, "steps of --schedule iterative", metavar="N", group="pruning")
    rerank: bool = option(
        False,
        "from the second step on, score the partly pruned network instead of the dense one",
        group="pruning",
    )
    num_images: int = option(500, "train images that --rerank ranks on", group="pruning")

    def check_steps(self, *, schedule: str, epochs: int, start_cov: int) -> None:
        """Refuse steps, or options of theirs, that do not go with the other options.

        Raises:
            ValueError: they do not.
        """
        if schedule != "iterative":
            refuse_given(
                self,
                ("steps", "rerank", "num_images"),
                f"with --schedule {schedule}: expected iterative",
            )
            return
        if not self.rerank:
            refuse_given(self, ("num_images",), "without --rerank: expected both")
        refuse_below(self, 1, "steps", "num_images")
        if epochs == 0:
            raise ValueError(f"--epochs is {epochs}: expected 1 or more of each step")
        if start_cov:
            raise ValueError(
                f"--start_cov is {start_cov} with --schedule iterative: expected 0, since all "
                "convs are pruned in every step"
            )
        if self.rerank and self.criterion in BLIND_CRITERIA:
            raise ValueError(
                f"--rerank with --criterion {self.criterion}: expected a criterion that looks at "
                "the network"
            )
