"""The nearest-motif search as a torch operator, on whatever device the tensors are."""

from .nearest import nearest_motifs, search

__all__ = ["nearest_motifs", "search"]
