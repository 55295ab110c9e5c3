"""Projection of a model onto a mosaic of motifs, in place, during training."""

from .momos import INITS, METHODS, MoMos, Select
from .result import ModelMosaic, ProjectionStats, Span

__all__ = ["INITS", "METHODS", "MoMos", "ModelMosaic", "ProjectionStats", "Select", "Span"]
