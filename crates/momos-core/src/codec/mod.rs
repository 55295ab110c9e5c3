//! How few bytes hold a mosaic or a tensor.
