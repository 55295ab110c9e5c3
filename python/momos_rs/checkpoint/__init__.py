"""Files of weights to named tensors and back."""

from .model import Base, Checkpoint, Entry

__all__ = ["Base", "Checkpoint", "Entry"]
