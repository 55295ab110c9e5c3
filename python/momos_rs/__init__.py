"""Measure, simplify and pack neural networks as mosaics of motifs."""
