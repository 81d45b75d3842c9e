"""Code that the PyTorch scripts share. It imports nothing that their environment may lack."""

from __future__ import annotations

import json
import math
from typing import Any


def rate_at(step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the share of the peak learning rate: zoo's warm-up and cosine decay."""
    total = epochs * steps_per_epoch
    warm = min(steps_per_epoch, total // 10)
    if step < warm:
        return 0.05 + 0.95 * step / warm
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1))) / 2


def say(**values: Any) -> None:
    """Print a line of JSON for the process that waits for it."""
    print(json.dumps(values), flush=True)
