"""The published tables beside what is counted here, on their page.

`python -m utils.benchmarks.published_tables FOLDER` renews the page; FOLDER holds the published
rank files of each network in a folder of its own.
"""

import sys
from pathlib import Path

from utils.commands.compare import compare_command
from utils.options.compare_options import CompareConfig
from utils.paper.pages import write_block
from utils.reports.compare_table import compare_text

if __name__ == "__main__":
    (folder,) = sys.argv[1:]
    found = compare_command(CompareConfig(rank_conv=Path(folder)))
    write_block("compare", compare_text(found))
