"""Everything that ``load_state_dict(strict=True)`` of the original needs comes back, or is refused
by name: what belongs to the weights is never among what is left out."""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import momos_rs
from momos_rs.checkpoint import Checkpoint, from_state_dict, read, to_state_dict
from momos_rs.defaults import MethodName
from momos_rs.errors import InvalidArgumentError, UnsafeFileError

Compare = Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]

STATE = {"w": torch.randn(8, 8), "b": torch.randn(8)}
OTHER = {"w": torch.randn(3, 2)}


class Converted(torch.nn.Module):
    """Converts weights of version 1 when it loads them, as spconv and torchvision's MNASNet do."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8, 8))

    def _load_from_state_dict(self, state: Any, prefix: str, meta: Any, *rest: Any) -> None:
        if (meta.get("version") or 1) < 2:
            state[prefix + "weight"] = state[prefix + "weight"].T.clone()
        super()._load_from_state_dict(state, prefix, meta, *rest)


def weight_of(module: torch.nn.Sequential) -> torch.Tensor:
    state: dict[str, torch.Tensor] = dict(module.state_dict())
    return state["0.weight"]


def saved(folder: Path, value: Any, **how: Any) -> Checkpoint:
    torch.save(value, folder / "in.pt", **how)
    return read(folder / "in.pt")


class TestVersionsOfModules:
    @pytest.mark.parametrize("name", ["out.pt", "out.safetensors"])
    @pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 1}])
    def test_travel_through_archives(
        self, tmp_path: Path, name: str, wrap: Callable[[Any], Any]
    ) -> None:
        model, fresh = torch.nn.Sequential(Converted()), torch.nn.Sequential(Converted())
        torch.save(wrap(model.state_dict()), tmp_path / "in.pt")
        momos_rs.pack_file(tmp_path / "in.pt", tmp_path / "a.momos", method="exact")
        momos_rs.unpack_file(tmp_path / "a.momos", tmp_path / name)
        loaded = to_state_dict(read(tmp_path / name))
        assert loaded._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]
        fresh.load_state_dict(loaded, strict=True)
        assert torch.equal(weight_of(fresh), weight_of(model))
        if name.endswith(".pt"):
            fresh.load_state_dict(torch.load(tmp_path / name, weights_only=True), strict=True)
            assert torch.equal(weight_of(fresh), weight_of(model))

    def test_in_memory_and_under_prefixes(self, tmp_path: Path) -> None:
        model = torch.nn.Sequential(Converted())
        fresh = torch.nn.Sequential(Converted())
        fresh.load_state_dict(momos_rs.unpack(momos_rs.pack(model, method="exact")))
        assert torch.equal(weight_of(fresh), weight_of(model))
        found = saved(tmp_path, {"a": model.state_dict(), "b": model.state_dict()})
        assert found.versions["a.0"] == {"version": 2}
        assert found.versions["b"] == {"version": 1}


class TestTensorsOfOtherMakers:
    def test_arrays_are_weights(self, tmp_path: Path, assert_identical: Compare) -> None:
        arrays = {
            "davg": np.arange(12.0).reshape(3, 4),
            "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
            "big": np.arange(3, dtype=">i4"),
            "scalar": np.array(2.5),
        }
        expected = {
            name: torch.from_numpy(np.array(each, each.dtype.newbyteorder("="), order="C"))
            for name, each in arrays.items()
        }
        for protocol in (2, 4, 5):
            found = saved(tmp_path, {**STATE, **arrays}, pickle_protocol=protocol)
            assert_identical(to_state_dict(found), {**STATE, **expected})
            assert found.left_out == ()

    def test_tensors_of_devices_rebuilt_from_arrays(
        self, tmp_path: Path, assert_identical: Compare
    ) -> None:
        class OnDevice:
            def __reduce__(self) -> Any:
                rebuild = torch._utils._rebuild_device_tensor_from_numpy
                return rebuild, (np.ones((2, 3), np.float32), torch.bfloat16, "cpu", False)

        found = saved(tmp_path, {"w": OnDevice()})
        assert_identical(to_state_dict(found), {"w": torch.ones(2, 3).bfloat16()})

    def test_tensors_with_attributes(self, tmp_path: Path, assert_identical: Compare) -> None:
        weight = torch.randn(4, 4)
        vars(weight)["ds_id"] = 3
        value = {"state_dict": {"w": weight}, "args": argparse.Namespace(lr=0.1)}
        assert_identical(to_state_dict(saved(tmp_path, value)), {"w": weight})

    def test_conjugated_and_negated_views(self, tmp_path: Path, assert_identical: Compare) -> None:
        first, second = (torch.randn(4, dtype=torch.complex64) for _ in range(2))
        state = {"conj": first.conj(), "imaginary": second.conj().imag}
        expected = {name: each.resolve_conj().resolve_neg() for name, each in state.items()}
        assert_identical(to_state_dict(saved(tmp_path, state)), expected)

    def test_uninitialised_parameters_in_files(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match=r"tensor 'weight' .*not initialised"):
            saved(tmp_path, dict(torch.nn.LazyLinear(3).state_dict()))


class TestPlaces:
    def test_state_dicts_side_by_side(self, tmp_path: Path, assert_identical: Compare) -> None:
        found = saved(tmp_path, {"model": STATE, "classifier": OTHER, "epoch": 3})
        expected = {f"model.{name}": each for name, each in STATE.items()}
        assert_identical(to_state_dict(found), {**expected, "classifier.w": OTHER["w"]})
        assert found.left_out == ("epoch",)

    def test_lists_of_state_dicts_at_any_depth(
        self, tmp_path: Path, assert_identical: Compare
    ) -> None:
        found = saved(tmp_path, {"experts": [OTHER, {"inner": [OTHER]}], "head": STATE})
        expected = {
            "experts.0.w": OTHER["w"],
            "experts.1.w": OTHER["w"],
            "head.w": STATE["w"],
            "head.b": STATE["b"],
        }
        assert_identical(to_state_dict(found), expected)

    @pytest.mark.parametrize("key", [0, (1, 2), None, b"w"])
    def test_weights_without_a_name_are_refused(self, tmp_path: Path, key: Any) -> None:
        with pytest.raises(InvalidArgumentError, match=r"weights under .*, which is no text"):
            saved(tmp_path, {**STATE, key: torch.ones(2)})

    def test_pickled_modules_beside_weights_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnsafeFileError, match="'teacher' in"):
            saved(tmp_path, {"state_dict": STATE, "teacher": torch.nn.Linear(2, 2)})

    def test_tensors_beside_a_state_dict_are_kept(
        self, tmp_path: Path, assert_identical: Compare
    ) -> None:
        found = saved(tmp_path, {"model": OTHER, "scale": torch.ones(3), "loss": torch.ones(())})
        assert set(to_state_dict(found)) == {"model.w", "scale", "loss"}
        history = saved(tmp_path, {"model": OTHER, "losses": [torch.tensor(1.0)]})
        assert_identical(to_state_dict(history), OTHER)


class TestNamesAndFiles:
    @pytest.mark.parametrize("protocol", range(1, 6))
    @pytest.mark.parametrize("zipped", [True, False])
    def test_every_protocol(
        self, tmp_path: Path, assert_identical: Compare, protocol: int, zipped: bool
    ) -> None:
        how = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
        found = saved(tmp_path, {"state_dict": STATE, "epoch": 2**70}, **how)
        assert_identical(to_state_dict(found), STATE)

    def test_names_that_are_no_utf8(self, tmp_path: Path) -> None:
        name = "emb.\udce9t\udce9"
        torch.save({name: torch.randn(8, 8)}, tmp_path / "in.pt")
        momos_rs.pack_file(tmp_path / "in.pt", method="exact")
        momos_rs.unpack_file(tmp_path / "in.momos", tmp_path / "out.pt")
        assert list(torch.load(tmp_path / "out.pt", weights_only=True)) == [name]

    def test_an_empty_tensor_comes_first(self, assert_identical: Compare) -> None:
        state = {"cache": torch.empty(0), **STATE, "none": torch.empty(0, 3, dtype=torch.int8)}
        assert_identical(momos_rs.unpack(momos_rs.pack(state, method="exact")), state)

    def test_python_2_wrote_names_as_bytes(self) -> None:
        from momos_rs.checkpoint.pickle_tree import read_pickle

        pickled = b"(dU\x07gr\xc3\xb6\xc3\x9feI1\ns."
        assert read_pickle(pickled, source="it") == {"größe": 1}
        assert pickle.loads(pickled, encoding="utf-8") == {"größe": 1}

    def test_names_before_patterns(self) -> None:
        state = {"a[0].w": torch.randn(8, 8), "a0.w": torch.randn(8, 8), "a1.w": torch.randn(8, 8)}
        kept = momos_rs.unpack(momos_rs.pack(state, motifs=2, exclude=("a[0].w",)))
        assert [torch.equal(kept[name], each) for name, each in state.items()] == [
            True,
            False,
            False,
        ]
        kept = momos_rs.unpack(momos_rs.pack(state, motifs=2, exclude=("a[01].w",)))
        assert not torch.equal(kept["a[0].w"], state["a[0].w"])
        assert torch.equal(kept["a1.w"], state["a1.w"])


class TestNumbers:
    @pytest.mark.parametrize("method", ["kmeans", "trellis", "grid"])
    @pytest.mark.parametrize("value", [-1e9, torch.finfo(torch.float32).min, 1.0])
    def test_masks_stay_exact_and_spare_the_weights(self, method: MethodName, value: float) -> None:
        weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
        mask = torch.triu(torch.full((64, 64), value), 1)
        state = {"w": weight, "mask": mask, "ones": torch.full((8, 8), 3.0)}
        back = momos_rs.unpack(momos_rs.pack(state, method=method))
        assert torch.equal(back["mask"], mask)
        assert torch.equal(back["ones"], state["ones"])
        alone = momos_rs.unpack(momos_rs.pack({"w": weight}, method=method))
        assert torch.equal(back["w"], alone["w"])

    def test_outliers_are_kept_with_a_note(self, tmp_path: Path) -> None:
        state = {"w": torch.randn(64, 64), "huge": torch.randn(32, 32) * 1e6}
        torch.save(state, tmp_path / "in.pt")
        report = momos_rs.pack_file(tmp_path / "in.pt")
        assert torch.equal(momos_rs.load(tmp_path / "in.momos")["huge"], state["huge"])
        assert any("huge kept exact: its values are" in note for note in report.notes)

    @pytest.mark.parametrize("method", ["kmeans", "trellis", "grid"])
    @pytest.mark.parametrize("scale", [1e38, 1e200])
    def test_nothing_decodes_to_infinity(self, method: MethodName, scale: float) -> None:
        dtype = torch.float32 if scale < 1e39 else torch.float64
        weight = (torch.rand(64, 64, dtype=torch.float64) * 3.4 * scale).to(dtype)
        back = momos_rs.unpack(momos_rs.pack({"w": weight}, method=method))
        assert bool(torch.isfinite(back["w"]).all())

    def test_a_tensor_lost_to_the_scale_of_others_is_noted(self, tmp_path: Path) -> None:
        state = {"w": torch.randn(256, 256), "small": torch.randn(16, 16) * 3e-3}
        torch.save(state, tmp_path / "in.pt")
        report = momos_rs.pack_file(tmp_path / "in.pt", method="grid", step=0.1, step_exponent=0.0)
        assert any("small is lost to the scale" in note for note in report.notes)


def test_settings_of_torch_change_nothing() -> None:
    model = {"w": torch.randn(16, 16), "empty": torch.empty(0)}
    data = momos_rs.pack(model)
    expected = momos_rs.unpack(data)
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            found = momos_rs.unpack(data)
            again = momos_rs.pack(model)
        weights = torch.nn.Linear(16, 16, device="cpu")
        summary = momos_rs.MoMos(s=4, capacity=0.1)(weights)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert again == data
    assert len(torch.unique(weights.weight.detach().reshape(-1, 4), dim=0)) <= summary.k
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_ordered_dictionaries_without_versions_are_plain() -> None:
    assert from_state_dict(OrderedDict(STATE)).versions == {}
