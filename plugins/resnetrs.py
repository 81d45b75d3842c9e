"""ResNet-RS.

Paper: Revisiting ResNets: Improved Training and Scaling Strategies, arXiv:2103.07579: ResNet-D with
squeeze-and-excitation to a quarter of the channels, and a strided convolution for the pooling after the stem. Weights:
timm's on the Hugging Face hub (licence in each row below).
"""

from __future__ import annotations

from functools import partial

from zoo.blocks import dilation
from zoo.blocks.residual import Bottleneck, ResidualNet, residual_stages
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Range, WeightSpec, weight_table

# arXiv:2103.07579, table 8. name: depths
VARIANTS = {
    "resnetrs50": (3, 4, 6, 3),
    "resnetrs101": (3, 4, 23, 3),
    "resnetrs152": (3, 8, 36, 3),
    "resnetrs200": (3, 24, 36, 3),
}
CITATION = """@inproceedings{bello2021revisiting,
  title = {Revisiting {ResNets}: Improved Training and Scaling Strategies},
  author = {Bello, Irwan and Fedus, William and Du, Xianzhi and Cubuk, Ekin D. and Srinivas, Aravind and Lin, Tsung-Yi
    and Shlens, Jonathon and Zoph, Barret},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    resnetrs101.tf_in1k 192 0.94 bicubic apache-2.0
    resnetrs152.tf_in1k 256 1.0 bicubic apache-2.0
    resnetrs200.tf_in1k 256 1.0 bicubic apache-2.0
    resnetrs50.tf_in1k 160 0.91 bicubic apache-2.0
""")


def _spec(name: str) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        family="ResNet-RS",
        build=partial(ResidualNet, Bottleneck, VARIANTS[name], squeeze=0.25, deep_stem=True, learned_pool=True),
        stages=residual_stages(Bottleneck, learned_pool=True),
        classifier=ClassifierLayout("fc"),
        preprocess=Preprocess(size=(256, 256), interpolation="bicubic", crop_pct=1.0),
        options={"drop_path_rate": Range(0.0), **dilation.OPTIONS},
        export_args=dilation.EXPORT,
        capabilities=(dilation.DILATABLE,),
        pretrained="tf_in1k",
        paper="https://arxiv.org/abs/2103.07579",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]
