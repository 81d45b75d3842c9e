"""Draw docs/style.png: two old paintings, each painted in the other's style, by the three methods.

    python tools/style_sheet.py ../shared/assets ADAIN_RUN FAST_RUN

The runs are what `zoo train --task style` made; FAST_RUN knows the wave. The contents are the style pictures of the
assets themselves (Hokusai, Munch: in the public domain).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from zoo.adapters.style import Picture, stylize
from zoo.adapters.style.pictures import contact_sheet, open_picture

import zoo

ROOT = Path(__file__).resolve().parent.parent
SIDE, STEPS = 256, 120


def main() -> None:
    """Paint and write. Columns: the content, the style, gatys, adain, fast trained here, fast as published."""
    assets, adain, fast = Path(sys.argv[1]), *map(zoo.load, sys.argv[2:4])
    folder = assets / "datasets" / "style_images" / "style"
    weights = {"weights": str(assets / "weights" / "squeezenet1_0_imagenet.safetensors")}
    gatys = zoo.create("squeezenet1_0", "style", method="gatys", steps=STEPS, **weights)
    net = str(assets / "weights" / "fast_style_wave.safetensors")
    wave = zoo.create("squeezenet1_0", "style", method="fast", net=net, **weights)
    scream, great_wave = (open_picture(folder / f"{name}.jpg") for name in ("scream", "wave"))
    sheet: list[list[Any]] = []
    for content, style in ((scream, great_wave), (great_wave, scream)):
        row: list[Picture] = [content, style]
        row.append(stylize(gatys, content, style, size=SIDE))
        row.append(stylize(adain, content, style, size=SIDE))
        if style is great_wave:
            row += [stylize(fast, content, size=SIDE), stylize(wave, content, size=SIDE)]
        sheet.append(row)
    print(contact_sheet(sheet, sys.argv[4] if len(sys.argv) > 4 else ROOT / "docs" / "style.png", height=SIDE * 3 // 4))


if __name__ == "__main__":
    main()
