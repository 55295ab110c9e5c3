"""Archives of earlier versions decode to the same bits as ever.

The files in `golden/` are never made again; `scripts/make_golden.py` adds new ones.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from momos_rs.archive import open_archive
from support.digests import tensor_digests
from support.models import fields_model, same_tensors, small_model

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.momos"))


def test_there_are_golden_archives() -> None:
    assert len(GOLDEN) >= 9


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_archive_decodes_to_the_same_bits(path: Path) -> None:
    record = json.loads(path.with_suffix(".json").read_text())
    with open_archive(path) as archive:
        assert tensor_digests(archive.checkpoint()) == record["tensors"]


@pytest.mark.parametrize("name", ["exact_mosaic", "lossless", "fields"])
def test_a_golden_archive_without_loss_is_the_model(name: str) -> None:
    model = fields_model() if name == "fields" else small_model()
    with open_archive(Path(__file__).parent / "golden" / f"{name}.momos") as archive:
        assert same_tensors(archive.checkpoint(), model)
