"""Declarations shared by families that can be dilated: capability, build option, and timm's name for the option."""

from __future__ import annotations

from zoo.registry.spec import OUTPUT_STRIDE

DILATABLE = "dilatable"
OPTIONS = {OUTPUT_STRIDE: (32, 16, 8)}
EXPORT = {OUTPUT_STRIDE: {stride: {OUTPUT_STRIDE: stride} for stride in OPTIONS[OUTPUT_STRIDE][1:]}}
