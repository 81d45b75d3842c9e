"""Paint an image in the style of a picture, without training (Gatys et al., 2016).

python examples/stylize.py IMAGE STYLE OUT.png
"""

from __future__ import annotations

import sys
from typing import Any

import zoo
from zoo.adapters.style import stylize


def main(image: str, style: str, out: str, backbone: str = "vgg19.tv_in1k", **options: Any) -> None:
    """Optimise the pixels until the features' statistics agree with those of the style image."""
    model = zoo.create(backbone, "style", method="gatys", **options)
    stylize(model, image, style).save(out)
    print(f"{out}: {image} in the style of {style}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
