"""The ``momos`` command: a thin layer over the functions of the package."""

from .main import main

__all__ = ["main"]
