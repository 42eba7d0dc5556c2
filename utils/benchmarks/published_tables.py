"""The README's copy of the published tables beside what is counted here.

`python -m utils.benchmarks.published_tables FOLDER` renews README.md; FOLDER holds the published
rank files of each network in a folder of its own.
"""

import sys
from pathlib import Path

from utils.commands.compare import CompareConfig, compare_command
from utils.paper.readme_block import README
from utils.reports.compare_table import updated
from utils.runs.atomic_write import write_text

if __name__ == "__main__":
    (folder,) = sys.argv[1:]
    found = compare_command(CompareConfig(rank_conv=Path(folder)))
    write_text(README, updated(README.read_text(), found))
