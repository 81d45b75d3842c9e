"""Draw the picture of the demonstration: example drawings, validation curves and test accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.data import decode
from zoo.demo.draw import DEMO, SIDE
from zoo.report import COLOURS, draw_lines, figure, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from zoo.training import Run

_EXAMPLES = 5


def draw_picture(drawings: Path, runs: Mapping[str, Run], path: Path) -> Path:
    """Write a PNG with examples of each class, validation accuracy by epoch, and accuracy on the test drawings."""
    with figure(12, 3.9, 1, 3) as (page, (examples, lines, bars)):
        _show_examples(examples, drawings)
        draw_lines(lines, {name: [row["accuracy"] for row in run.history] for name, run in runs.items()})
        lines.set_ylim(0, 1.03)
        lines.set_title("Accuracy on the validation drawings")
        _show_bars(bars, {name: run.metrics["test"]["accuracy"] for name, run in runs.items()})
        tested = next(iter(runs.values())).metrics["test"]["images"]
        bars.set_title(f"Accuracy on {tested} new drawings")
        return write(page, path)


def _show_examples(ax: Axes, drawings: Path) -> None:
    """Show a row of drawings for each class, on white."""
    step = SIDE + 2
    sheet = np.full((len(DEMO) * step, _EXAMPLES * step, 3), 255, np.uint8)
    for row, name in enumerate(DEMO):
        for column, file in enumerate(sorted((drawings / name).iterdir())[:_EXAMPLES]):
            sheet[row * step :, column * step :][:SIDE, :SIDE] = decode(file)
    ax.imshow(sheet, interpolation="nearest")
    ax.set_title("Classes that are new to the weights")
    ax.set_yticks([(row + 0.5) * step for row in range(len(DEMO))], list(DEMO))
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _show_bars(ax: Axes, accuracies: Mapping[str, float]) -> None:
    """Show a bar for the accuracy of each run, and a line at the accuracy of guessing."""
    bars = ax.bar(list(accuracies), list(accuracies.values()), width=0.55, color=COLOURS[: len(accuracies)])
    ax.bar_label(bars, [f"{value:.0%}" for value in accuracies.values()], padding=3, fontweight="bold")
    ax.axhline(1 / len(DEMO), color="#8b8f96", linestyle=":", linewidth=1.2)
    ax.annotate(
        "chance", (0.5, 1 / len(DEMO)), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
        ha="center", color="#8b8f96", fontsize=9,
    )  # fmt: skip
    ax.set_ylim(0, 1.03)
