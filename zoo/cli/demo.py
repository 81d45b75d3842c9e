"""`zoo demo`: transfer learning in one minute, without downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli import output


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the drawings, the runs and the plot.")] = Path(
        "zoo-demo"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of the drawings and of both runs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train on a few drawings, with pretrained weights and from scratch.

    Needs no network and no dataset, and takes about a minute.
    """
    from zoo.demo.compare import compare

    comparison = compare(out, seed=seed, say=output.note)
    if as_json:
        output.print_json(
            {
                "accuracy": comparison.accuracies(),
                "picture": str(comparison.picture),
                "seconds": round(comparison.seconds, 1),
            }
        )
        return
    headers = ("run", "training images", "epochs", "new drawings", "accuracy", "macro F1", "seconds")
    rows = []
    for name, run in comparison.runs.items():
        m, test = run.metrics, run.metrics["test"]
        numbers = (f"{test['accuracy']:.1%}", f"{test['macro_f1']:.3f}", f"{m['seconds']:.1f}")
        rows.append((name, m["train_images"], m["epochs"], test["images"], *numbers))
    output.print_table(headers, rows, right=headers[1:])
    drawing = next((out / "drawings" / "test").rglob("*.png"))
    print()
    output.line(f"picture: {comparison.picture} ({comparison.seconds:.0f} s in all)")
    output.line("next: use the trained model on a drawing")
    output.line(f"  zoo predict {comparison.runs['pretrained'].folder} {drawing}")
