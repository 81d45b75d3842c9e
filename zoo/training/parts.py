"""What the training room adds to extension points: optimizers and learning-rate schedules."""

from __future__ import annotations

from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Part

_OPTIMIZERS = {
    "adamw": "Adam with decoupled weight decay (arXiv:1711.05101).",
    "sgd": "Gradient descent with Nesterov momentum 0.9.",
    "adam": "Adam (arXiv:1412.6980); weight decay is part of the gradient.",
    "lion": "Lion (arXiv:2302.06675); takes a smaller learning rate.",
}
_SCHEDULES = {
    "cosine": "After a warm-up along a cosine to a hundredth.",
    "linear": "After a warm-up along a line to a hundredth.",
    "constant": "The peak rate throughout.",
}


@hookimpl
def zoo_parts() -> list[Part]:
    rows = [("training.optimizer", "optimizers", _OPTIMIZERS), ("training.schedule", "schedules", _SCHEDULES)]
    return [
        Part(point, name, f"zoo.training.{module}:{name}", said)
        for point, module, table in rows
        for name, said in table.items()
    ]
