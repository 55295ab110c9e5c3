"""``torchrun --nproc-per-node P -m momos_rs.pack MODEL ...``: ``momos pack`` by several processes.

The arguments are those of ``momos pack``, and the archive is the same to the byte. Not to be
imported: ``momos_rs.pack`` is the function of that name.
"""

from __future__ import annotations

if __name__ != "__main__":
    raise ImportError(
        "momos_rs.pack is a function; what packs with several processes is run as "
        "torchrun --nproc-per-node 2 -m momos_rs.pack MODEL"
    )

from momos_rs.cli.together import main

main()
