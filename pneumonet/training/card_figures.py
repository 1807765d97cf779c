"""The model card's pictures, drawn from metrics.json alone."""

from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pneumonet.training.card_tables import figure

RELIABILITY_FIGURE: Final = "figures/reliability.png"


def draw_reliability(metrics: dict[str, Any], path: Path) -> None:
    """Draw a reliability diagram of each source of films (DeGroot and Fienberg, The Statistician 1983).

    Args:
        metrics: The snapshot's metrics.json; `adult` is drawn beside the held-back films where there is one.
        path: PNG to write; its folder is made.
    """
    panels = [("Held-back children: the answer", "confidence", "share right", metrics, "ece")]
    if adult := metrics.get("adult"):
        panels.append(("Adults", "probability of pneumonia", "share labelled pneumonia", adult, "binary.ece"))
    canvas = Figure(figsize=(4.2 * len(panels), 4.2), dpi=120, layout="constrained")
    for index, (title, of, came_true, report, error) in enumerate(panels):
        axes = canvas.add_subplot(1, len(panels), index + 1)
        axes.set(xlabel=f"mean {of} of a bin", ylabel=came_true)
        _panel(axes, f"{title}\nECE {figure(report, error)}", report)
    path.parent.mkdir(parents=True, exist_ok=True)
    # No version of the library in the file: the same figures give the same bytes.
    canvas.savefig(path, metadata={"Software": None})


def _panel(axes: Axes, title: str, report: dict[str, Any]) -> None:
    bins = report["reliability"]
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], color="#1d4ed8", marker="o")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(title, fontsize=10)
