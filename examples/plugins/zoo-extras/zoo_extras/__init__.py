"""Parts for extension points of zoo. `zoo list` shows them beside zoo's own; `zoo plugins check extras` checks them.

Values are given as `module:attribute`, so that listing imports nothing of them.
"""

import zoo
from zoo.registry.spec import Part

ZOO_API = 1


@zoo.hookimpl
def zoo_parts():
    return [
        Part("detector.head", "wide-fcos", "zoo_extras.head:WIDE", "FCOS with a larger centre-sampling radius."),
        Part("segmenter.decoder", "sum", "zoo_extras.decoder:SUM", "All maps at one width, upsampled and added up."),
        Part("segmenter.loss", "poly1", "zoo_extras.poly:of_pixels", "Poly-1 (arXiv:2204.12511)."),
        Part("classifier.loss", "poly1", "zoo_extras.poly:of_images", "Poly-1 (arXiv:2204.12511)."),
        Part("data.format", "listing", "zoo_extras.listing", "listing.txt: a line for each image, `file<tab>class`."),
        Part("data.writer", "listing", "zoo_extras.listing", "listing.txt: a line for each image, `file<tab>class`."),
        Part("training.optimizer", "adabelief", "zoo_extras.optimizer:adabelief", "AdaBelief (arXiv:2010.07468)."),
        Part("training.plan", "gradual", "zoo_extras.gradual:gradual", "`gradual[:N]`: one stage more in each phase."),
        Part("augment.operation", "shift", "zoo_extras.shift:SHIFT", "Shift by up to a tenth of the sides."),
        Part("model.export", "npz", "zoo_extras.npz:export", "NumPy arrays by name, and the labels."),
        Part("zoo.command", "census", "zoo_extras.census:census", "Count the images of each class."),
    ]
