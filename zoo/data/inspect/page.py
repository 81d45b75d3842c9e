"""The result of `zoo.check` as one HTML page that needs no network, with thumbnails of the worst findings."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from zoo.data.decode import decode
from zoo.data.inspect.findings import Finding, Place, shown
from zoo.data.inspect.text import class_rows, headline, images_lines, verdict
from zoo.errors import DataError, counted
from zoo.targets.faults import LEVELS, Check, Level

if TYPE_CHECKING:
    from zoo.data.inspect.result import Inspection

SIDE = 200
"""Longer side of a thumbnail."""
FEW = 12
"""Number of findings of each kind that are shown with thumbnails."""
COPIES = 4
"""Number of copies of an image that are shown."""
LISTED = 200
"""Number of findings of each kind that are listed."""
BUDGET = 2_000_000
"""Largest total size of the thumbnails in bytes; the page is then well below 3 MB."""
_THREADS = 4

# Okabe and Ito's colours, which people with any kind of colour blindness can tell apart. Signs say the same as colours.
_SIGNS: dict[Level, str] = {
    "error": "\N{BLACK UP-POINTING TRIANGLE}",
    "warning": "\N{BLACK DIAMOND}",
    "note": "\N{BLACK CIRCLE}",
}
_STYLE = """
:root{--error:#d55e00;--warning:#e69f00;--note:#0072b2;--s0:#0072b2;--s1:#e69f00;--s2:#009e73;--s3:#cc79a7;
--text:#1b1b1b;--soft:#5a5a5a;--paper:#fff;--card:#f4f4f2;--line:#d8d8d4}
@media(prefers-color-scheme:dark){:root{--text:#ececec;--soft:#a8a8a8;--paper:#161616;--card:#242424;--line:#3a3a3a;
--note:#56b4e9;--s0:#56b4e9}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:70rem;font:16px/1.5 system-ui,sans-serif;color:var(--text);
background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.1rem;margin:0}p{margin:.3rem 0}
.soft{color:var(--soft);font-size:.9rem}
nav{display:flex;flex-wrap:wrap;gap:.5rem;margin:1rem 0;padding:0;list-style:none}
nav a{color:inherit;text-decoration:none;background:var(--card);border-radius:.4rem;padding:.35rem .7rem;
border-left:.4rem solid var(--level)}
section{border-top:1px solid var(--line);padding:1rem 0}
.error{--level:var(--error)}.warning{--level:var(--warning)}.note{--level:var(--note)}
.sign{color:var(--level)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,13rem),1fr));gap:.8rem;margin:.8rem 0}
figure{margin:0;background:var(--card);border-radius:.4rem;padding:.5rem;border-top:.25rem solid var(--level)}
@media(min-width:36rem){figure.wide{grid-column:span 2}}
.copies{display:flex;flex-wrap:wrap;gap:.5rem}.copies>div{flex:1 1 8rem;max-width:12.5rem}
img{display:block;max-width:100%;height:auto;border-radius:.2rem;
background:repeating-conic-gradient(#bbb 0 25%,#ddd 0 50%) 0 0/16px 16px}
.missing{display:grid;place-items:center;height:6rem;border:2px dashed var(--line);
border-radius:.2rem;color:var(--soft)}
figcaption,.name{font-size:.85rem;margin-top:.3rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .5rem;text-align:right;border-bottom:1px solid var(--line);font-weight:normal}
td:first-child,th:first-child{text-align:left}tr:first-child th{font-weight:bold}
.bar{display:flex;height:.7rem;margin-top:.15rem}.bar i{display:block;min-width:1px}
summary{cursor:pointer;padding:.3rem 0}li{margin:.15rem 0;font-size:.9rem}
.scroll{overflow-x:auto}
"""


def write(result: Inspection, file: Path) -> Path:
    """Write the page. Returns the file.

    Raises:
        DataError: the file cannot be written.
    """
    file = file.expanduser()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page(result), "utf-8")
    except OSError as error:
        raise DataError(
            f"the report {file} cannot be written: {error.strerror or error}. Choose another --out."
        ) from error
    return file


def page(result: Inspection) -> str:
    """Return the page as text."""
    thumbnails = _thumbnails(result)
    groups = result.by_check()
    links = "".join(
        f'<a class="{check.level}" href="#{check.name}"><span class="sign">{_SIGNS[check.level]}</span> '
        f"{escape(check.text)}: {len(found)}</a>"
        for check, found in groups.items()
    )
    legend = " ".join(
        f'<span class="{level}"><span class="sign">{_SIGNS[level]}</span> {level}</span>' for level in LEVELS
    )
    sections = "".join(_section(check, found, thumbnails) for check, found in groups.items())
    title = escape(shown(Path(result.data).name or result.data))
    facts = "".join(f"<p>{escape(line)}</p>" for line in images_lines(result))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}: dataset check</title><style>{_STYLE}</style></head><body>"
        f"<h1>Dataset check: {title}</h1><p>{escape(headline(result))}</p><p><b>{escape(verdict(result))}</b> "
        f'<span class="soft">{legend}</span></p><nav>{links}</nav>{sections}'
        f"<section><h2>Splits and classes</h2>{_classes(result)}</section>"
        f"<section><h2>Images</h2>{facts}{_sizes(result)}</section></body></html>\n"
    )


def _section(check: Check, found: list[Finding], thumbnails: dict[tuple[Place, Finding], str]) -> str:
    drawn = [finding for finding in found[:FEW] if any((place, finding) in thumbnails for place in finding.places)]
    rest = [finding for finding in found if finding not in drawn]
    pictures = "".join(_figure(finding, thumbnails) for finding in drawn)
    lines = "".join(f"<li>{escape(str(finding))}</li>" for finding in rest[:LISTED])
    more = f"<p>... {len(rest) - LISTED} more; --json lists all.</p>" if len(rest) > LISTED else ""
    listed = f"<ul>{lines}</ul>{more}"
    if drawn and rest:
        listed = f"<details><summary>{len(rest)} more</summary>{listed}</details>"
    heading = escape(check.text[0].upper() + check.text[1:])
    return (
        f'<section class="{check.level}" id="{check.name}"><h2><span class="sign">{_SIGNS[check.level]}</span> '
        f'{heading}: {len(found)}</h2><p class="soft">{check.level}, {check.name}</p>'
        f"<p>{escape(check.advice)}</p>"
        + (f'<div class="grid">{pictures}</div>' if pictures else "")
        + (listed if rest else "")
        + "</section>"
    )


def _figure(finding: Finding, thumbnails: dict[tuple[Place, Finding], str]) -> str:
    copies = finding.places[:COPIES]
    pictures = "".join(
        f"<div>{thumbnails.get((place, finding)) or '<div class=missing>no preview</div>'}"
        f'<div class="name">{escape(str(place))}</div></div>'
        for place in copies
    )
    words = [f"annotation {finding.index}"] if finding.index is not None else []
    words += [shown(finding.detail)] if finding.detail else []
    if len(finding.places) > len(copies):
        words.append(f"and {counted(len(finding.places) - len(copies), 'more copy', 'more copies')}")
    wide = ' class="wide"' if len(copies) > 1 else ""
    caption = escape("; ".join(words))
    return f'<figure{wide}><div class="copies">{pictures}</div><figcaption>{caption}</figcaption></figure>'


def _classes(result: Inspection) -> str:
    """Return the table of classes, with bars in the colours of the splits."""
    head, images, *rows = class_rows(result)
    cells = "".join(
        f'<th scope="col">{escape(name)} <span style="color:var(--s{i % 4})">\N{BLACK SQUARE}</span></th>'
        for i, name in enumerate(head[1:])
    )
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) for row in [images]
    )
    most = max((sum(map(int, row[1:])) for row in rows if row[1:] and row[1]), default=0) or 1
    for row in rows:
        counts = [int(cell) for cell in row[1:] if cell]
        parts = "".join(
            f'<i style="width:{100 * count / most:.2f}%;background:var(--s{i % 4})"></i>'
            for i, count in enumerate(counts)
            if count
        )
        bar = f'<div class="bar">{parts}</div>' if parts else ""
        values = "".join(f"<td>{cell}</td>" for cell in row[1:])
        body += f'<tr><th scope="row">{escape(shown(row[0]))}{bar}</th>{values}</tr>'
    return f'<div class="scroll"><table><tr><th></th>{cells}</tr>{body}</table></div>'


def _sizes(result: Inspection) -> str:
    """Return the most frequent sizes."""
    rows = "".join(f"<tr><td>{w}x{h}</td><td>{count}</td></tr>" for (w, h), count in result.sizes().most_common(10))
    return f"<table><tr><th>most frequent sizes</th><th>images</th></tr>{rows}</table>" if rows else ""


def _thumbnails(result: Inspection) -> dict[tuple[Place, Finding], str]:
    """Return the pictures of the first findings of each kind, in turn, until the budget is spent."""
    wanted = list(_in_turn([found[:FEW] for found in result.by_check().values()]))
    jobs = [(place, finding) for finding in wanted for place in finding.places[:COPIES] if place.file is not None]
    pictures: dict[tuple[Place, Finding], str] = {}
    spent = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(jobs), 32):
            if spent > BUDGET:
                break
            batch = jobs[start : start + 32]
            for job, picture in zip(batch, pool.map(lambda job: _picture(*job), batch), strict=True):
                if picture and spent + len(picture) <= BUDGET:
                    pictures[job] = picture
                    spent += len(picture)
    return pictures


def _in_turn(groups: Iterable[list[Finding]]) -> Iterator[Finding]:
    """Yield the first of each group, then the second of each, and so on."""
    for row in zip_longest(*groups):
        yield from (finding for finding in row if finding is not None)


def _picture(place: Place, finding: Finding) -> str:
    """Return an image with the place of the finding as HTML; empty if it cannot be read."""
    assert place.file is not None
    try:
        image = Image.fromarray(decode(place.file, on_corrupt="lenient"))
    except DataError:
        return ""
    factor = SIDE / max(image.size)
    size = tuple(max(round(side * min(factor, 8)), 1) for side in image.size)
    small = image.resize((size[0], size[1]), Image.Resampling.BILINEAR if factor < 2 else Image.Resampling.NEAREST)
    if finding.area is not None and all(map(math.isfinite, finding.area)):
        _mark(small, [value * min(factor, 8) for value in finding.area])
    data = io.BytesIO()
    small.save(data, "JPEG", quality=72, optimize=True)
    source = base64.b64encode(data.getvalue()).decode()
    return (
        f'<img width="{size[0]}" height="{size[1]}" loading="lazy" alt="{escape(str(place))}" '
        f'src="data:image/jpeg;base64,{source}">'
    )


def _mark(image: Image.Image, area: list[float]) -> None:
    """Draw a rectangle in black and yellow, visible on any background, at least a few pixels large."""
    left, right = sorted((area[0], area[2]))
    top, bottom = sorted((area[1], area[3]))
    width, height = image.size
    left, right = (min(max(value, 0), width - 1) for value in (left - 3, right + 3))
    top, bottom = (min(max(value, 0), height - 1) for value in (top - 3, bottom + 3))
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right, bottom), outline="black", width=4)
    draw.rectangle((left + 1, top + 1, max(right - 1, left + 1), max(bottom - 1, top + 1)), outline="#f0e442", width=2)
