"""Rank the feature maps of a network: `python rank_generation.py --arch vgg_16_bn`."""

import sys

from utils.commands.starting import end_quietly

if __name__ == "__main__":
    end_quietly("rank_generation.py")

from utils.commands.door import Command, run
from utils.options.rank_options import RankConfig


def main(argv: list[str]) -> int:
    """Run the command that `argv` spells and return the exit code."""
    return run(
        RankConfig,
        _command,
        argv,
        prog="rank_generation.py",
        description="Average rank of every filter's feature map, written to rank_conv/ARCH/.",
    )


def _command(config: RankConfig) -> Command:
    from utils.commands.ranks import ranks_command, ranks_text  # torch takes seconds

    return ranks_command, ranks_text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
