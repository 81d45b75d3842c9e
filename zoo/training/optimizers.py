"""Optimizers by name. `zoo.training.step.optimizer` adds clipping, the weight decay mask, accumulation and rules."""

from __future__ import annotations

from collections.abc import Callable

import optax

Optimizer = Callable[[optax.ScalarOrSchedule, optax.GradientTransformation], optax.GradientTransformation]
"""A part: a function of the learning rate and of weight decay as a transformation, which it places in its chain."""
OwnOptimizer = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]
"""Accepted instead of a name: a function of the learning rate, e.g. `optax.adabelief`, with its own weight decay."""


def adamw(rate: optax.ScalarOrSchedule, decay: optax.GradientTransformation) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101)."""
    return optax.chain(optax.scale_by_adam(), decay, optax.scale_by_learning_rate(rate))


def sgd(rate: optax.ScalarOrSchedule, decay: optax.GradientTransformation) -> optax.GradientTransformation:
    """Gradient descent with Nesterov momentum 0.9 (Sutskever et al., 2013); weight decay is part of the gradient."""
    return optax.chain(decay, optax.trace(0.9, nesterov=True), optax.scale_by_learning_rate(rate))


def adam(rate: optax.ScalarOrSchedule, decay: optax.GradientTransformation) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980); weight decay is part of the gradient."""
    return optax.chain(decay, optax.scale_by_adam(), optax.scale_by_learning_rate(rate))


def lion(rate: optax.ScalarOrSchedule, decay: optax.GradientTransformation) -> optax.GradientTransformation:
    """Lion (Chen et al., 2023, https://arxiv.org/abs/2302.06675): sign of the momentum, decoupled weight decay.

    The paper takes a rate three to ten times smaller than AdamW's.
    """
    return optax.chain(optax.scale_by_lion(), decay, optax.scale_by_learning_rate(rate))
