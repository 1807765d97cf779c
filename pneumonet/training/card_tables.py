"""Figures of an evaluation's report as text: a value with its interval, a table."""

from collections.abc import Sequence
from typing import Any


def figure(report: dict[str, Any], name: str) -> str:
    """Return a figure and its interval by dotted name, "-" where the report has none.

    >>> figure({"binary": {"auroc": 0.5}, "intervals": {"binary.auroc": [0.25, 0.75]}}, "binary.auroc")
    '0.500 [0.250, 0.750]'
    """
    value: Any = report
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return "-"
    interval = report.get("intervals", {}).get(name)
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells, the first the heading, as a Markdown table.

    >>> print(markdown_table([["a", "b"], ["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"| {' | '.join('---' for _ in rows[0])} |")
    return "\n".join(lines)


def percent(share: float, digits: int = 1) -> str:
    """Return a share as a percentage, with a space before the sign.

    >>> percent(0.125), percent(0.9, digits=0)
    ('12.5 %', '90 %')
    """
    return f"{share:.{digits}%}".replace("%", " %")
