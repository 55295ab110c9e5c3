"""Fake quantisation for quantisation-aware training."""

from .fake_quantize import (
    AttachedQuantizers,
    FakeQuantizer,
    attach_quantizers,
    enable_quantizers,
    fake_quantize,
    remove_quantizers,
)

__all__ = [
    "AttachedQuantizers",
    "FakeQuantizer",
    "attach_quantizers",
    "enable_quantizers",
    "fake_quantize",
    "remove_quantizers",
]
