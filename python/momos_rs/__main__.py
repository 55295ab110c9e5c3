"""``python -m momos_rs``: the ``momos`` command."""

from .cli import main

main()
