"""Parts that `zoo.training` registers: optimizers, learning-rate schedules and plans."""

from __future__ import annotations

from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Part
from zoo.training.points import OPTIMIZERS, PLANS, SCHEDULES

_OPTIMIZERS = {
    "adamw": "Adam with decoupled weight decay (arXiv:1711.05101).",
    "sgd": "Gradient descent with Nesterov momentum 0.9.",
    "adam": "Adam (arXiv:1412.6980); weight decay is part of the gradient.",
    "lion": "Lion (arXiv:2302.06675); takes a smaller learning rate.",
}
_SCHEDULES = {
    "cosine": "Linear warm-up, then cosine decay to a hundredth.",
    "linear": "Linear warm-up, then linear decay to a hundredth.",
    "constant": "The peak rate throughout, without warm-up.",
}
_PLANS = {
    "head": ("head", "The head alone, on cached features."),
    "last": ("last", "`last:N`: the head and the last N stages of the backbone."),
    "all": ("everything", "`all`, or `all:D` for layer-wise decay: each stage at D times the rate of the next one."),
    "bitfit": ("bitfit", "The head and the biases of the backbone (arXiv:2106.10199)."),
}


@hookimpl
def zoo_parts() -> list[Part]:
    named = [(OPTIMIZERS.name, "optimizers", _OPTIMIZERS), (SCHEDULES.name, "schedules", _SCHEDULES)]
    return [
        *(
            Part(point, name, f"zoo.training.{module}:{name}", summary)
            for point, module, rows in named
            for name, summary in rows.items()
        ),
        *(Part(PLANS.name, name, f"zoo.training.plans:{row}", summary) for name, (row, summary) in _PLANS.items()),
    ]
