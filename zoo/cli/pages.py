"""The pages that `zoo show` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zoo.cli import output
from zoo.registry.options import shown

Entry = Mapping[str, Any]
Entries = Mapping[str, Sequence[Entry]]


def _facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print a title and a line for each fact that is not empty."""
    output.line(title)
    given = {key: value for key, value in facts.items() if value not in (None, "", [], {})}
    width = max(map(len, given), default=0)
    for key, value in given.items():
        output.line(f"  {key:<{width}}  {value}")


def _input(entry: Entry) -> str:
    p = entry["preprocess"]
    height, width = p["size"]
    mean, std = (", ".join(f"{v:g}" for v in p[key]) for key in ("mean", "std"))
    crop = f"crop {p['crop_pct']:g}" if p["crop_mode"] == "center" else p["crop_mode"]
    return f"{height}x{width} {p['channels']}, {p['interpolation']}, {crop}, mean ({mean}), std ({std})"


def _options(options: Mapping[str, Any]) -> str:
    return "; ".join(f"{key} = {' | '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in options.items())


def _citation(entry: Entry) -> None:
    if entry.get("citation"):
        print("\nCitation")
        for line in entry["citation"].strip().splitlines():
            output.line(line)


def _stages(entry: Entry) -> None:
    print("\nStages")
    rows = [(s["name"], s["kind"], s["channels"], s["stride"]) for s in entry["stages"]]
    output.print_table(("stage", "kind", "channels", "stride"), rows, right=("channels", "stride"))


def _backbone_facts(entry: Entry) -> dict[str, Any]:
    number = entry["parameters"]
    multiple = f", a multiple of {entry['size_multiple']}" if entry["size_multiple"] > 1 else ""
    return {
        "family": entry["family"],
        "parameters": f"{output.count(number)} ({number:,}), without classifier" if number else "",
        "smallest image": f"{entry['min_size']} pixels per side{multiple}",
        "options": _options(entry["options"]),
        "key layouts": ", ".join(entry["layouts"]),
        "capabilities": ", ".join(entry["capabilities"]),
        "code licence": entry["code_license"],
        "paper": entry["paper"],
        "plugin": f"{entry['module']} ({entry['distribution']})",
    }


def backbone(entry: Entry, entries: Entries) -> None:
    """Print the facts, stages, weights and citation of a backbone."""
    default = f"{entry['name']}.{entry['pretrained']}" if entry["pretrained"] else "none: random initialisation"
    _facts(
        f"{entry['name']} (backbone)", {**_backbone_facts(entry), "input": _input(entry), "default weights": default}
    )
    _stages(entry)
    if entry["weights"]:
        print("\nWeights")
        rows = [
            (w["name"], w["preprocess"]["size"][0], w["num_classes"], w["license"], w["commercial_use"])
            for w in entry["weights"]
        ]
        output.print_table(("name", "input", "classes", "license", "commercial"), rows, right=("input", "classes"))
    _citation(entry)


def weights(entry: Entry, entries: Entries) -> None:
    """Print the facts of a set of weights, and the backbone they are for."""
    arch = entry["name"].rpartition("/")[2].split(".", 1)[0]
    facts = {
        "backbone": arch,
        "source": entry["source"] or "your own file, recognised by its sha256",
        "file": entry["file"] if entry["source"] else "",
        "revision": entry["revision"],
        "sha256": entry["sha256"],
        "input": _input(entry),
        "classes": f"{entry['num_classes']} {entry['labels'] and '(' + entry['labels'] + ')'}".strip(),
        "built with": _options(entry["options"]),
        "weights licence": f"{entry['license']}, commercial use: {entry['commercial_use']}",
        "note": entry["note"],
        "plugin": f"{entry['module']} ({entry['distribution']})" if entry["module"] else entry["distribution"],
    }
    _facts(f"{entry['name']} (weights)", facts)
    for row in entries["backbones"]:
        if row["name"].rpartition("/")[2] == arch:
            print()
            _facts(f"{row['name']} (its backbone)", _backbone_facts(row))
            _stages(row)
            _citation(row)


def task(entry: Entry, entries: Entries) -> None:
    """Print a task and its options."""
    facts = {"summary": entry.get("summary"), "paper": entry.get("paper")}
    _facts(f"{entry['name']} (task)", {**facts, "plugin": f"{entry['module']} ({entry['distribution']})"})
    if entry.get("options"):
        print("\nOptions (--set OPTION=VALUE)")
    for name, option in entry.get("options", {}).items():
        print()
        output.line(f"  {name} = {shown(option['default'])}    accepted: {option['accepted']}")
        text = option["description"] + " Can be changed on a trained model." * option["adjustable"]
        for line in textwrap.wrap(text, 94):
            output.line(" " * 6 + line)
    _citation(entry)


def model(entry: Entry, entries: Entries) -> None:
    """Print a published model: a backbone with a task and its configuration."""
    facts = {"summary": entry.get("summary"), "backbone": entry["backbone"], "task": entry["adapter"]}
    plugin = f"{entry['module']} ({entry['distribution']})"
    _facts(f"{entry['name']} (model)", {**facts, "config": _options(entry.get("config", {})), "plugin": plugin})


PAGES: Mapping[str, Callable[[Entry, Entries], None]] = {
    "backbones": backbone,
    "weights": weights,
    "tasks": task,
    "models": model,
}
