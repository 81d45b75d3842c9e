"""Memory and time of sliding-window inference on a large image, on Linux.

    python benchmarks/sliding.py --height 4000 --width 6000

A segmenter on MobileNetV2 with the defaults predicts an enlarged image of people. The script prints how far the memory
of the process rises above that with the model loaded: decoding, windows, logits, compilation, the mask.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from PIL import Image
from segmenter import ASSETS, WEIGHTS

BACKBONE = "mobilenetv2_100"
GIB = 1 << 20
"""In kilobytes, the unit of /proc."""


def memory(what: str) -> float:
    """Return GiB of the process: `VmRSS`, current memory, or `VmHWM`, the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / GIB


def main() -> None:
    """Predict once and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=4000)
    parser.add_argument("--width", type=int, default=6000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        source = sorted((ASSETS / "datasets" / "pennfudan" / "PNGImages").iterdir())[0]
        with Image.open(source) as image:
            image.convert("RGB").resize((args.width, args.height)).save(photo, quality=90)

        import zoo

        labels = ("background", "person")
        model = zoo.create(BACKBONE, "segmenter", labels=labels, weights=str(WEIGHTS[BACKBONE]))
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        loaded, began, used = memory("VmRSS"), time.perf_counter(), time.process_time()
        found = model.predict(photo, sliding_window=True)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        assert found.size == (args.height, args.width)
        above = memory("VmHWM") - loaded
        print(
            f"{args.width}x{args.height} in windows of {'x'.join(map(str, model.card.preprocess.size))}: {above:.2f} "
            f"GiB above the {loaded:.2f} with the model loaded; {seconds:.0f} s, {cpu:.0f} s of processor time"
        )


if __name__ == "__main__":
    main()
