"""The task contract in small pieces, which `zoo.models.adapter.Adapter` puts together.

- `backbone`: what a task needs of a backbone.
- `head`: the head on its features, and what it is built from.
- `objective`: the targets, and the loss by terms.
- `output`: decoding, typed predictions, and what other programs read.
- `report`: metrics and plots.
- `training`: how a task trains, as one value.
- `forward`: the pass through a model that loss and decoding share.
- `former`: names that the contract had before, and what replaces them.
"""
