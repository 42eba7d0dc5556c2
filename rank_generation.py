"""Rank the feature maps of a network: `python rank_generation.py --arch vgg_16_bn`."""

import sys

from utils.commands.starting import end_quietly

if __name__ == "__main__":
    end_quietly("rank_generation.py")

from utils.commands.door import always, run
from utils.commands.ranks import ranks_command, ranks_text
from utils.options.rank_options import RankConfig


def main(argv: list[str]) -> int:
    """Run the command that `argv` spells and return the exit code."""
    return run(
        RankConfig,
        always(ranks_command, ranks_text),
        argv,
        prog="rank_generation.py",
        description="Average rank of every filter's feature map, written to rank_conv/ARCH/.",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
