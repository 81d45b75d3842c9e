"""An optimizer: Adam with the moments of AdaBelief (arXiv:2010.07468) and decoupled weight decay."""

import optax


def adabelief(rate, decay):
    return optax.chain(optax.scale_by_belief(), decay, optax.scale_by_learning_rate(rate))
