"""Draw docs/style.png: two old paintings, each in the style of the other, by the three methods.

    python tools/style_sheet.py ../shared/assets ADAIN_RUN [PICTURE]

ADAIN_RUN is a run of `zoo train --task style` on photos and the two paintings. The feed-forward network comes from the
assets and paints the wave. The contents are the paintings themselves (Hokusai, Munch: in the public domain).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import zoo
from zoo.adapters.style import stylize
from zoo.adapters.style.pictures import contact_sheet, open_picture

ROOT = Path(__file__).resolve().parent.parent
SIDE, STEPS = 256, 100


def main() -> None:
    """Paint and write the file. Columns: the content, the style, gatys, adain, fast."""
    assets, adain = Path(sys.argv[1]), zoo.load(sys.argv[2])
    target = Path(sys.argv[3]) if len(sys.argv) > 3 else ROOT / "docs" / "style.png"
    folder = assets / "datasets" / "style_images" / "style"
    weights = {"weights": str(assets / "weights" / "squeezenet1_0_imagenet.safetensors")}
    gatys = zoo.create("squeezenet1_0", "style", method="gatys", steps=STEPS, **weights)
    net = str(assets / "weights" / "fast_style_wave.safetensors")
    fast = zoo.create("squeezenet1_0", "style", method="fast", net=net, **weights)
    scream, wave = (open_picture(folder / f"{name}.jpg") for name in ("scream", "wave"))
    sheet: list[list[Any]] = []
    for content, style in ((scream, wave), (wave, scream)):
        row = [content, style, *(stylize(model, content, style, size=SIDE) for model in (gatys, adain))]
        sheet.append([*row, stylize(fast, content, size=SIDE)] if style is wave else row)
    print(contact_sheet(sheet, target, height=SIDE * 5 // 8))


if __name__ == "__main__":
    main()
