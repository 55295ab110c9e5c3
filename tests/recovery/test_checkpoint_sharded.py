"""Checkpoints in several files, and folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from momos_rs.checkpoint import read, to_state_dict
from momos_rs.errors import CorruptionError, InvalidArgumentError, MomosError

Compare = Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]

STATE = {
    "embed": torch.randn(5, 2),
    "layer.1": torch.randn(3),
    "layer.0": torch.randn(3).bfloat16(),
    "head": torch.randn(2, 5),
}
SHARDS = ("model-00001-of-00002", "model-00002-of-00002")


def shard(folder: Path, suffix: str, **extra: torch.Tensor) -> Path:
    """Writes STATE in two shards with an index whose order is that of STATE."""
    parts = (
        {"embed": STATE["embed"], "layer.0": STATE["layer.0"]},
        {"head": STATE["head"], "layer.1": STATE["layer.1"]} | extra,
    )
    weight_map: dict[str, str] = {}
    for stem, part in zip(SHARDS, parts, strict=True):
        name = f"{stem}{suffix}"
        if suffix == ".safetensors":
            safetensors.torch.save_file(part, folder / name, {"format": "pt"})
        else:
            torch.save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = (
        "model.safetensors.index.json"
        if suffix == ".safetensors"
        else "pytorch_model.bin.index.json"
    )
    write_index(folder / index, {name: weight_map[name] for name in STATE})
    return folder / index


def write_index(path: Path, weight_map: Any) -> None:
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


class TestSharded:
    @pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
    @pytest.mark.parametrize("by_folder", [True, False])
    def test_all_shards_in_the_order_of_the_index(
        self, tmp_path: Path, assert_identical: Compare, suffix: str, by_folder: bool
    ) -> None:
        index = shard(tmp_path, suffix)
        checkpoint = read(tmp_path if by_folder else index)
        assert_identical(to_state_dict(checkpoint), STATE)
        assert checkpoint.left_out == ()
        assert checkpoint.source == str(index)
        assert checkpoint.format == ("safetensors" if suffix == ".safetensors" else "torch")
        files = [tmp_path / f"{stem}{suffix}" for stem in SHARDS]
        assert checkpoint.nbytes_on_disk == sum(each.stat().st_size for each in files)
        assert checkpoint.metadata == ({"format": "pt"} if suffix == ".safetensors" else {})

    def test_ties_within_a_shard(self, tmp_path: Path) -> None:
        weight = torch.randn(3)
        torch.save({"a": weight, "b": weight}, tmp_path / "x.bin")
        write_index(tmp_path / "x.index.json", {"b": "x.bin", "a": "x.bin"})
        checkpoint = read(tmp_path / "x.index.json")
        assert [entry.name for entry in checkpoint.entries] == ["b", "a"]
        assert [entry.base for entry in checkpoint.entries] == [0, 0]
        assert len(checkpoint.bases) == 1

    def test_what_the_index_does_not_list_is_left_out(
        self, tmp_path: Path, assert_identical: Compare
    ) -> None:
        checkpoint = read(shard(tmp_path, ".safetensors", extra=torch.ones(1)))
        assert_identical(to_state_dict(checkpoint), STATE)
        assert checkpoint.left_out == ("model-00002-of-00002.safetensors: extra",)

    def test_shards_behind_links(self, tmp_path: Path, assert_identical: Compare) -> None:
        """As in the cache of huggingface_hub."""
        blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
        blobs.mkdir()
        snapshot.mkdir()
        shard(blobs, ".safetensors")
        for each in blobs.iterdir():
            (snapshot / each.name).symlink_to(Path("..") / "blobs" / each.name)
        assert_identical(to_state_dict(read(snapshot)), STATE)

    def test_a_missing_shard_is_named(self, tmp_path: Path) -> None:
        index = shard(tmp_path, ".safetensors")
        (tmp_path / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(
            FileNotFoundError, match=r"model-00002-of-00002\.safetensors is missing"
        ):
            read(index)

    def test_a_missing_tensor_is_named(self, tmp_path: Path) -> None:
        index = shard(tmp_path, ".safetensors")
        write_index(index, {"ghost": "model-00001-of-00002.safetensors"})
        with pytest.raises(
            CorruptionError, match=r"model-00001-of-00002\.safetensors lacks tensor 'ghost'"
        ):
            read(index)

    @pytest.mark.parametrize(
        "file",
        [
            "../outside.safetensors",
            "/etc/passwd",
            "a/../../b",
            "C:\\x",
            "..\\x",
            "\\\\host\\x",
            "a\0b",
        ],
    )
    def test_shards_outside_the_folder_are_refused(self, tmp_path: Path, file: str) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "outside.safetensors")
        write_index(folder / "x.index.json", {"a": file})
        with pytest.raises(CorruptionError, match="outside its folder"):
            read(folder)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "{}",
            '{"weight_map": []}',
            '{"weight_map": {"a": 1}}',
            '{"weight_map": {"a": "x", "a": "y"}}',
            "[" * 100_000,
            "\xff",
            '{"weight_map": ' + "9" * 5000 + "}",
        ],
        ids=range(10),
    )
    def test_broken_indices(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "x.index.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(CorruptionError, match=r"x\.index\.json"):
            read(tmp_path)

    def test_a_broken_shard_is_named(self, tmp_path: Path) -> None:
        index = shard(tmp_path, ".safetensors")
        (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"")
        with pytest.raises(CorruptionError, match=r"model-00002-of-00002\.safetensors is empty"):
            read(index)


class TestFolders:
    def test_a_single_file(self, tmp_path: Path, assert_identical: Compare) -> None:
        torch.save(STATE, tmp_path / "last.ckpt")
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "subfolder.pt").mkdir()
        assert_identical(to_state_dict(read(tmp_path)), STATE)

    def test_the_usual_name_comes_first(self, tmp_path: Path, assert_identical: Compare) -> None:
        safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
        torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
        torch.save({}, tmp_path / "training_args.bin")
        loaded = to_state_dict(read(tmp_path))
        assert_identical({name: loaded[name] for name in STATE}, STATE)

    def test_training_state_is_no_candidate(
        self, tmp_path: Path, assert_identical: Compare
    ) -> None:
        torch.save(STATE, tmp_path / "weights.pt")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            torch.save({"x": torch.ones(1)}, tmp_path / name)
        assert_identical(to_state_dict(read(tmp_path)), STATE)

    def test_without_weights(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(InvalidArgumentError, match="without weights"):
            read(tmp_path)

    def test_with_several(self, tmp_path: Path) -> None:
        for name in ("a.pt", "b.safetensors"):
            (tmp_path / name).touch()
        with pytest.raises(
            InvalidArgumentError, match=r"2 files of weights \(a\.pt, b\.safetensors\)"
        ):
            read(tmp_path)

    def test_errors_are_momos_errors_or_os_errors(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "nothing")
        with pytest.raises(MomosError):
            read(tmp_path)
