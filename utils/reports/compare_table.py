"""What `compare` found, for people: its tables."""

from collections.abc import Mapping
from typing import Any

from utils.paper.compare import EXACT, NO_RATES
from utils.paper.markdown import millions, table
from utils.paper.printed_number import PrintedNumber
from utils.reports.summary import paper_markdown

_RULES = {
    "HRank": "HRank's own (a removed filter's MACs go, the next layer's inputs stay; no norms)",
    "HRankPlus": "thop 0.0.31's on the slim network (norms and biases too; all parameters)",
}
_ORIGINS = {"search": "search", "third party": "others"}
_LEGEND = """\
MACs, parameters; M = 1e6, B = 1e9. *Exact*: rounded or cut off to the printed digits, it is what
was printed; else the two differences. *(search)*: the rates are not the authors', they were
searched for until both numbers fit; *(others)*: they stand in others' repositories, built on
HRankPlus. Such a match proves nothing about the authors' rates. *Physical*: convs and linears, and
all parameters, of the network that is left; for HRank that depends on the ranks."""
_HEADER = ("network", "row", "published", "here, their rule", "physical", "verdict")


def compare_text(found: Mapping[str, Any]) -> str:
    """Return the result of `compare_command` as Markdown tables."""
    parts = []
    notes: dict[str, int] = {}  # what is said below the tables: its number
    for publication, rule in _RULES.items():
        rows = [row for row in found["rows"] if row["publication"] == publication]
        if rows:
            cells = [_cells(row, notes) for row in rows]
            parts += [f"{publication}; counting rule: {rule}.", table(_HEADER, cells)]
    parts += ["\n".join(f"- [{number}] {text}" for text, number in notes.items()), _LEGEND]
    return "\n\n".join([*filter(None, parts), *(_job(job) for job in found["jobs"])])


def _cells(row: Mapping[str, Any], notes: dict[str, int]) -> tuple[str, ...]:
    published, measured = (
        {what: row[what][which] for what in ("macs", "parameters")}
        for which in ("published", "measured")
    )
    unit = published["macs"][-1]
    return (
        row["arch"],
        row["row"],
        ", ".join(published.values()),
        _in_unit(measured, unit),
        _in_unit(row["physical"], unit),
        _verdict(row, notes),
    )


def _in_unit(counts: Mapping[str, int] | str | None, unit: str) -> str:
    """Return MACs in the unit of the row, parameters in millions; words as they are."""
    if counts is None or isinstance(counts, str):
        return counts or ""
    if counts["macs"] is None:
        return ""
    macs = counts["macs"] / int(PrintedNumber(f"1{unit}").value)
    return f"{macs:.2f}{unit}, {millions(counts['parameters'])}"


def _verdict(row: Mapping[str, Any], notes: dict[str, int]) -> str:
    """Return a short verdict, with the number of the note that says why."""
    if row["verdict"] in (EXACT, NO_RATES):
        words = [{EXACT: "exact", NO_RATES: "no rates"}[row["verdict"]]]
    else:
        words = [_percent(row["macs"]), _percent(row["parameters"])]
    origin = (row["compress_rate_source"] or "").partition(":")[0]
    if origin in _ORIGINS:
        words.append(f"({_ORIGINS[origin]})")
    if row["note"]:
        words.append(f"[{notes.setdefault(row['note'], len(notes) + 1)}]")
    return " ".join(words)


def _percent(count: Mapping[str, Any]) -> str:
    published = float(PrintedNumber(count["published"]).value)
    return f"{100 * count['difference'] / published:+.2f}%"


def _job(job: Mapping[str, Any]) -> str:
    """Return what a run measured beside its published row."""
    accuracy, physical = job["accuracy"], job["physical"]
    low, high = accuracy["interval_percent"]
    found = (
        f"{job['job_dir']}: {job['arch']}, {job['criterion']}, `{job['compress_rate']}`; "
        f"fine-tuned {accuracy['top1_percent']:.2f}%, "
        f"{accuracy['correct']} of {accuracy['images']} right "
        f"(95% interval {low:.2f} to {high:.2f}); physical {_in_unit(physical, 'M')}."
    )
    if job["paper"] is None:
        return f"{found}\n\nNothing was published for these rates."
    return f"{found}\n\n{paper_markdown(job['paper'])}"
