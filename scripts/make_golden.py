"""Makes the golden archives of a new format version; existing ones are never made again.

    python scripts/make_golden.py

writes `tests/compatibility/golden/NAME.momos` and, beside it, the digests of its tensors as decoded
today.
`tests/compatibility/test_archive_compatibility.py` holds every later reader to them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from momos_rs import packing
from momos_rs.archive import open_archive

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from support.digests import tensor_digests  # noqa: E402
from support.models import fields_model, small_calibration, small_model  # noqa: E402

OPTIONS: dict[str, dict[str, Any]] = {
    "kmeans": {"capacity": 0.2},
    "fast": {"capacity": 0.2, "effort": "fast"},
    "best": {"capacity": 0.2, "effort": "best"},
    "random_float32": {"capacity": 0.2, "method": "random", "motif_dtype": "float32"},
    "exact_mosaic": {"capacity": 1.0},
    "lossless": {"lossless": True},
    "all_parameters": {"motifs": 9, "all_parameters": True, "block_size": 3},
    "grid": {"method": "grid"},
    "trellis": {"method": "trellis"},
    "calibrated_grid": {"method": "grid"},
    "calibrated_trellis": {"method": "trellis", "step": 0.3},
    "fields": {"lossless": True},
}
MODELS = {"fields": fields_model}

CALIBRATED = ("calibrated_grid", "calibrated_trellis")
"""Those packed with a calibration."""


def main() -> None:
    folder = TESTS / "compatibility" / "golden"
    for name, options in OPTIONS.items():
        path = folder / f"{name}.momos"
        if path.exists():
            print(f"{path.name} stays as it is")
            continue
        calibration = small_calibration() if name in CALIBRATED else None
        model = MODELS.get(name, small_model)()
        path.write_bytes(packing.pack(model, **options, calibration=calibration))
        with open_archive(path) as archive:
            record = {"options": options, "tensors": tensor_digests(archive.checkpoint())}
        path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
