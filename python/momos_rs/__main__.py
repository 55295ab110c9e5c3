"""``python -m momos_rs``: the ``momos`` command, also by several processes under torchrun."""

import os

if "TORCHELASTIC_RUN_ID" in os.environ or "WORLD_SIZE" in os.environ:
    from .cli.together import main
else:
    from .cli import main

main()
