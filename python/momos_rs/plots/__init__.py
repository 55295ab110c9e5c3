"""Pictures of measurements; they need matplotlib (``pip install 'momos_rs[plot]'``)."""

from .complexity import PICTURES, draw_pictures, pictures_for, save_pictures

__all__ = ["PICTURES", "draw_pictures", "pictures_for", "save_pictures"]
