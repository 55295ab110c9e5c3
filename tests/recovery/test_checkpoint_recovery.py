"""What is read and written again is what it was: values to the bit, keys, order, types and ties."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from momos_rs.checkpoint import Base, Checkpoint, Entry, from_state_dict, read, to_state_dict, write
from momos_rs.dtypes import DTYPES
from momos_rs.errors import CorruptionError, InvalidArgumentError

Compare = Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf", "ignore:TypedStorage")

SAFE = [each for each in DTYPES.values() if each.safetensors]


def tensor_of(dtype_name: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Random bits as a tensor, so that NaN payloads, infinities and subnormals occur."""
    element = DTYPES[dtype_name]
    numel = int(np.prod(shape, dtype=int))
    generator = np.random.default_rng(seed)
    raw = generator.integers(0, 256, numel * element.itemsize, dtype=np.uint8)
    if dtype_name == "BOOL":
        raw &= 1
    dtype = getattr(torch, element.torch, None)
    if dtype is None:
        pytest.skip(f"torch {torch.__version__} has no {element.torch}")
    if numel == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(raw).view(dtype).reshape(shape)


def both_ways(folder: Path, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Through ``torch.save``, our reader, our writer and ``torch.load``."""
    torch.save(state, folder / "in.pt")
    write(folder / "out.pt", read(folder / "in.pt"), overwrite=True)
    loaded: dict[str, torch.Tensor] = torch.load(folder / "out.pt", weights_only=True)
    return loaded


class TestValues:
    @pytest.mark.parametrize("name", DTYPES)
    def test_every_type_through_torch_files(
        self, tmp_path: Path, assert_identical: Compare, name: str
    ) -> None:
        state = {
            "matrix": tensor_of(name, (3, 4)),
            "scalar": tensor_of(name, ()),
            "empty": tensor_of(name, (2, 0, 3)),
            "transposed": tensor_of(name, (4, 6)).t(),
        }
        assert_identical(both_ways(tmp_path, state), state)
        assert [base.dtype for base in read(tmp_path / "out.pt").bases] == [name] * 4

    @pytest.mark.parametrize("name", [each.name for each in SAFE])
    def test_every_type_through_safetensors_files(
        self, tmp_path: Path, assert_identical: Compare, name: str
    ) -> None:
        state = {
            "matrix": tensor_of(name, (3, 4)),
            "scalar": tensor_of(name, ()),
            "t": tensor_of(name, (4, 6)).t(),
        }
        path = tmp_path / "a.safetensors"
        write(path, from_state_dict(state))
        assert_identical(to_state_dict(read(path)), state)
        if name != "F8_E8M0":  # which the reference library writes but cannot load
            loaded = safetensors.torch.load_file(path)
            assert_identical({key: loaded[key] for key in state}, state)

    def test_pairs_of_four_bit_floats(self, tmp_path: Path, assert_identical: Compare) -> None:
        state = {"t": tensor_of("F4_X2", (3, 4))}
        ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
        write(ours, from_state_dict(state))
        safetensors.torch.save_file(state, theirs, metadata={"format": "pt"})
        assert ours.read_bytes() == theirs.read_bytes()
        assert_identical(to_state_dict(read(theirs)), state)

    def test_types_that_safetensors_lacks(self, tmp_path: Path) -> None:
        checkpoint = from_state_dict({"a.phase": tensor_of("C128", (2,))})
        with pytest.raises(InvalidArgumentError, match=r"'a\.phase' .*C128.*\.pt"):
            write(tmp_path / "a.safetensors", checkpoint)
        assert list(tmp_path.iterdir()) == []

    def test_conjugate_and_negative_views(self, assert_identical: Compare) -> None:
        value = torch.randn(4, dtype=torch.complex64)
        state = {"conj": value.conj(), "imaginary": value.conj().imag, "plain": value}
        expected = {name: each.resolve_conj().resolve_neg() for name, each in state.items()}
        assert_identical(to_state_dict(from_state_dict(state)), expected)

    names = st.lists(st.text(max_size=6), max_size=6, unique=True)
    shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)

    @settings(max_examples=40, deadline=None)
    @given(names, st.data())
    def test_any_state_dict(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        assert_identical: Compare,
        names: list[str],
        data: st.DataObject,
    ) -> None:
        folder = tmp_path_factory.mktemp("any")
        state = {}
        for index, name in enumerate(names):
            dtype = data.draw(st.sampled_from(["F32", "BF16", "F64", "I64", "U8", "BOOL", "C64"]))
            tensor = tensor_of(dtype, data.draw(self.shapes), seed=index)
            order = data.draw(st.permutations(range(tensor.ndim)))
            state[name] = tensor.permute(order)
        checkpoint = from_state_dict(state)
        for suffix in ("pt", "safetensors"):
            path = folder / f"a.{suffix}"
            if suffix == "safetensors" and "__metadata__" in names:
                continue
            write(path, checkpoint)
            if state:
                assert_identical(to_state_dict(read(path)), state)


class TestTies:
    def test_tied_weights_stay_tied(self, tmp_path: Path, assert_identical: Compare) -> None:
        weight = torch.randn(5, 3)
        state = {
            "encoder": weight,
            "other": torch.randn(2),
            "decoder": weight,
            "flat": weight.view(-1),
        }
        loaded = both_ways(tmp_path, state)
        assert_identical(loaded, state)
        assert loaded["encoder"].data_ptr() == loaded["decoder"].data_ptr()
        loaded["encoder"].zero_()
        assert not loaded["flat"].any()
        assert loaded["other"].all()

    def test_a_tie_is_stored_once(self) -> None:
        weight = torch.randn(5, 3)
        checkpoint = from_state_dict({"a": weight, "b": weight})
        assert [(base.dtype, base.numel) for base in checkpoint.bases] == [("F32", 15)]
        assert checkpoint.entries == (Entry("a", (5, 3), 0), Entry("b", (5, 3), 0))
        assert (checkpoint.numel, checkpoint.nbytes) == (15, 60)

    def test_a_transposed_tie(self, tmp_path: Path, assert_identical: Compare) -> None:
        weight = torch.randn(5, 3)
        state = {"a": weight.t(), "b": weight}
        assert from_state_dict(state).entries == (
            Entry("a", (3, 5), 0, 0, (1, 3)),
            Entry("b", (5, 3), 0),
        )
        loaded = both_ways(tmp_path, state)
        assert_identical(loaded, state)
        loaded["b"][4, 0] = 7
        assert loaded["a"][0, 4] == 7

    def test_a_tie_of_transposed_views_alone_is_contiguous(self) -> None:
        view = torch.randn(5, 3).t()
        checkpoint = from_state_dict({"a": view, "b": view})
        assert checkpoint.entries == (Entry("a", (3, 5), 0), Entry("b", (3, 5), 0))
        assert bytes(checkpoint.bases[0].read()) == view.contiguous().numpy().tobytes()

    def test_overlapping_slices_share_the_span(
        self, tmp_path: Path, assert_identical: Compare
    ) -> None:
        storage = torch.arange(100.0)
        state = {"tail": storage[40:60], "head": storage[30:50]}
        checkpoint = from_state_dict(state)
        assert checkpoint.entries == (
            Entry("tail", (20,), 0, 10, (1,)),
            Entry("head", (20,), 0, 0, (1,)),
        )
        assert checkpoint.bases[0].numel == 30
        loaded = both_ways(tmp_path, state)
        assert_identical(loaded, state)
        loaded["tail"][0] = -1
        assert loaded["head"][10] == -1

    def test_disjoint_slices_of_one_storage_are_separate(self) -> None:
        storage = torch.arange(1000.0)
        checkpoint = from_state_dict({"a": storage[:10], "b": storage[10:20], "c": storage[990:]})
        assert [base.numel for base in checkpoint.bases] == [10, 10, 10]
        assert all(entry.strides is None for entry in checkpoint.entries)

    def test_columns_of_a_wide_matrix_do_not_bring_it_along(
        self, assert_identical: Compare
    ) -> None:
        matrix = torch.randn(100, 50)
        state = {"a": matrix[:, 3], "b": matrix[:, 20]}
        checkpoint = from_state_dict(state)
        assert [base.numel for base in checkpoint.bases] == [100, 100]
        assert_identical(to_state_dict(checkpoint), state)

    def test_columns_that_overlap_truly_stay_tied(self, assert_identical: Compare) -> None:
        matrix = torch.randn(100, 50)
        state = {"a": matrix[:, 3], "b": matrix[:, 3:4], "c": matrix[10, 2:9]}
        restored = to_state_dict(from_state_dict(state))
        assert_identical(restored, state)
        restored["a"][10] = 5
        assert restored["b"][10, 0] == restored["c"][1] == 5

    def test_interleaved_parts_that_fill_their_storage_share_it(
        self, assert_identical: Compare
    ) -> None:
        fused = torch.randn(4, 6)
        state = dict(zip("qkv", fused.chunk(3, dim=1), strict=True))
        checkpoint = from_state_dict(state)
        assert [base.numel for base in checkpoint.bases] == [24]
        assert_identical(to_state_dict(checkpoint), state)

    def test_expanded_tensors(self, tmp_path: Path, assert_identical: Compare) -> None:
        state = {
            "scalar": torch.tensor(3.0).expand(4, 5),
            "rows": torch.arange(3.0).expand(4, 3),
            "columns": torch.randn(10, 7)[:, :1].expand(10, 6),
            "windows": torch.arange(6.0).unfold(0, 3, 1),
        }
        checkpoint = from_state_dict(state)
        assert [base.numel for base in checkpoint.bases] == [1, 3, 10, 6]
        assert_identical(both_ways(tmp_path, state), state)
        write(tmp_path / "a.safetensors", checkpoint)
        loaded = safetensors.torch.load_file(tmp_path / "a.safetensors")
        assert_identical({name: loaded[name] for name in state}, state)

    def test_one_memory_under_two_types(self, tmp_path: Path, assert_identical: Compare) -> None:
        value = torch.randn(4)
        state = {"a": value, "b": value.view(torch.int32)}
        write(tmp_path / "a.pt", from_state_dict(state))
        assert_identical(torch.load(tmp_path / "a.pt", weights_only=True), state)

    def test_overlapping_arrays(self, assert_identical: Compare) -> None:
        memory = np.arange(10, dtype=np.float32)
        checkpoint = from_state_dict({"a": memory[:6], "b": memory[4:]})
        assert [base.numel for base in checkpoint.bases] == [10]
        restored = to_state_dict(checkpoint)
        assert_identical(restored, {"a": torch.arange(6.0), "b": torch.arange(4.0, 10.0)})

    @settings(max_examples=100, deadline=None)
    @given(st.data())
    def test_any_views_of_one_storage(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        assert_identical: Compare,
        data: st.DataObject,
    ) -> None:
        storage = torch.arange(64.0)
        state = {}
        for index in range(data.draw(st.integers(1, 5))):
            shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
            strides = [data.draw(st.integers(0, 9)) for _ in shape]
            offset = data.draw(st.integers(0, 9))
            state[str(index)] = storage.as_strided(shape, strides, offset)
        checkpoint = from_state_dict(state)
        restored = to_state_dict(checkpoint)
        assert_identical(restored, state)
        path = tmp_path_factory.mktemp("views") / "a.safetensors"
        write(path, checkpoint)
        assert_identical(to_state_dict(read(path)), state)
        # Writing to an element through one view must show in exactly the views that had it.
        for first, original in state.items():
            if not original.numel():
                continue
            value = original.flatten()[0].item()
            restored[first].as_strided((1,), (1,)).fill_(-5)
            for second, other in state.items():
                shared = other == value
                changed = restored[second] == -5
                assert torch.equal(shared & changed, changed)
                if _same_base(checkpoint, first, second):
                    assert torch.equal(shared, changed)
                else:
                    assert not shared.any()
            restored[first].as_strided((1,), (1,)).fill_(value)


def _same_base(checkpoint: Checkpoint, first: str, second: str) -> bool:
    bases = {entry.name: entry.base for entry in checkpoint.entries}
    return bases[first] == bases[second]


class TestModules:
    def check(
        self,
        tmp_path: Path,
        assert_identical: Compare,
        model: torch.nn.Module,
        fresh: torch.nn.Module,
    ) -> None:
        state = model.state_dict()
        torch.save({"epoch": 3, "model_state_dict": state}, tmp_path / "in.ckpt")
        checkpoint = read(tmp_path / "in.ckpt")
        assert checkpoint.left_out == ("epoch",)
        for name in ("out.pt", "out.safetensors"):
            write(tmp_path / name, checkpoint)
            loaded = to_state_dict(read(tmp_path / name))
            assert_identical(loaded, state)
            fresh.load_state_dict(loaded, strict=True)
            assert_identical(fresh.state_dict(), state)

    def test_tied_embeddings(self, tmp_path: Path, assert_identical: Compare) -> None:
        def make() -> torch.nn.Module:
            encoder, decoder = torch.nn.Embedding(11, 4), torch.nn.Linear(4, 11)
            decoder.weight = encoder.weight
            return torch.nn.Sequential(OrderedDict(encoder=encoder, decoder=decoder))

        self.check(tmp_path, assert_identical, make(), make())
        loaded = torch.load(tmp_path / "out.pt", weights_only=True)
        assert loaded["encoder.weight"].data_ptr() == loaded["decoder.weight"].data_ptr()

    def test_bfloat16(self, tmp_path: Path, assert_identical: Compare) -> None:
        model = torch.nn.Linear(5, 3).bfloat16()
        self.check(tmp_path, assert_identical, model, torch.nn.Linear(5, 3).bfloat16())

    def test_channels_last(self, tmp_path: Path, assert_identical: Compare) -> None:
        model = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        assert not model.weight.is_contiguous()
        self.check(tmp_path, assert_identical, model, torch.nn.Conv2d(3, 8, 3))

    def test_batch_norm_and_buffers(self, tmp_path: Path, assert_identical: Compare) -> None:
        model, fresh = (
            torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)) for _ in range(2)
        )
        self.check(tmp_path, assert_identical, model, fresh)

    def test_a_module_in_memory(self, assert_identical: Compare) -> None:
        model = torch.nn.LSTM(3, 4)
        assert_identical(to_state_dict(from_state_dict(model)), model.state_dict())


class TestMemory:
    def test_contiguous_tensors_are_not_copied(self) -> None:
        tensor = torch.zeros(8)
        [base] = from_state_dict({"a": tensor}).bases
        tensor[3] = 1
        assert base.read().ctypes.data == tensor.data_ptr()
        assert base.read().any()

    def test_restored_tensors_can_be_written_to(self, tmp_path: Path) -> None:
        write(tmp_path / "a.safetensors", from_state_dict({"a": torch.ones(3)}))
        checkpoint = read(tmp_path / "a.safetensors")
        to_state_dict(checkpoint)["a"].zero_()
        assert to_state_dict(checkpoint)["a"].all()

    def test_safetensors_are_written_base_by_base(self, tmp_path: Path) -> None:
        alive = peak = 0

        def make() -> np.ndarray[Any, np.dtype[np.uint8]]:
            nonlocal alive, peak
            alive += 1
            peak = max(peak, alive)
            data = np.ones(1000, np.uint8)

            def gone() -> None:
                nonlocal alive
                alive -= 1

            weakref.finalize(data, gone)
            return data

        bases = tuple(Base("U8", 1000, make) for _ in range(10))
        entries = tuple(Entry(str(index), (1000,), index) for index in range(10))
        write(tmp_path / "a.safetensors", Checkpoint(entries, bases))
        gc.collect()
        assert peak <= 2

    def test_torch_is_not_imported_for_safetensors(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        write(path, from_state_dict({"a": torch.ones(3, 2).t(), "b": torch.ones(2).bfloat16()}))
        code = (
            "import sys; from momos_rs.checkpoint import read, write\n"
            "write(sys.argv[2], read(sys.argv[1])); sys.exit('torch' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code, path, tmp_path / "b.safetensors"], check=True)
        assert path.read_bytes() == (tmp_path / "b.safetensors").read_bytes()


class TestArrays:
    @pytest.mark.parametrize(
        "array",
        [
            np.arange(6, dtype=">f4").reshape(2, 3),
            np.arange(6, dtype=np.int16)[::-1],
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.array(3, np.uint64),
            np.zeros((0, 2)),
            np.frombuffer(bytes(9), np.dtype([("a", "u1"), ("b", "<f8")]))["b"],
        ],
    )
    def test_any_layout(self, array: np.ndarray[Any, Any], assert_identical: Compare) -> None:
        native = np.array(array, array.dtype.newbyteorder("="), order="C")
        restored = to_state_dict(from_state_dict({"a": array}))
        assert_identical(restored, {"a": torch.from_numpy(native)})

    @pytest.mark.parametrize("value", [np.array(["text"]), np.array([None]), 3, None, "x"])
    def test_what_is_not_a_tensor_is_named(self, value: Any) -> None:
        with pytest.raises(InvalidArgumentError, match=r"here: 'bad' is a .*, not a tensor"):
            from_state_dict({"good": torch.ones(1), "bad": value}, source="here")


class TestWriting:
    def test_metadata_is_carried(self, tmp_path: Path) -> None:
        metadata = {"author": "someone", "format": "flax"}
        safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata)
        checkpoint = read(tmp_path / "a.safetensors")
        assert checkpoint.metadata == metadata
        write(tmp_path / "b.safetensors", checkpoint)
        assert read(tmp_path / "b.safetensors").metadata == metadata

    def test_the_format_is_stated_where_it_was_not(self, tmp_path: Path) -> None:
        write(tmp_path / "a.safetensors", from_state_dict({"a": torch.ones(1)}))
        assert read(tmp_path / "a.safetensors").metadata == {"format": "pt"}

    @pytest.mark.parametrize("name", ["a", "a.onnx", "a.pt.gz"])
    def test_unknown_suffixes(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InvalidArgumentError, match=r"\.pt.*\.safetensors"):
            write(tmp_path / name, from_state_dict({}))

    @pytest.mark.parametrize("suffix", [".pt", ".PTH", ".bin", ".ckpt", ".safetensors"])
    def test_existing_files_are_kept_unless_asked(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a{suffix}"
        write(path, from_state_dict({"a": torch.zeros(1)}))
        with pytest.raises(FileExistsError, match="--force"):
            write(path, from_state_dict({"a": torch.ones(1)}))
        assert not to_state_dict(read(path))["a"].any()
        write(path, from_state_dict({"a": torch.ones(1)}), overwrite=True)
        assert to_state_dict(read(path))["a"].all()

    def test_a_file_can_replace_itself(self, tmp_path: Path) -> None:
        for name in ("a.pt", "a.safetensors"):
            path = tmp_path / name
            write(path, from_state_dict({"a": torch.arange(1000.0)}))
            write(path, read(path), overwrite=True)
            assert torch.equal(to_state_dict(read(path))["a"], torch.arange(1000.0))

    def test_keys_keep_their_order(self, tmp_path: Path) -> None:
        state = {
            name: torch.ones(1, dtype=dtype)
            for name, dtype in [("z", torch.int8), ("a", torch.float64), ("m", torch.float16)]
        }
        write(tmp_path / "a.safetensors", from_state_dict(state))
        assert [entry.name for entry in read(tmp_path / "a.safetensors").entries] == ["z", "a", "m"]

    @pytest.mark.parametrize(
        "entry",
        [
            Entry("a", (5,), 0),
            Entry("a", (2,), 0, offset=3),
            Entry("a", (2,), 0, offset=-1),
            Entry("a", (2, 2), 0, strides=(3, 1)),
            Entry("a", (2,), 0, strides=(-1,)),
            Entry("a", (2,), 0, strides=(1, 1)),
        ],
    )
    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_views_outside_their_base_are_refused(
        self, tmp_path: Path, entry: Entry, suffix: str
    ) -> None:
        base = Base("F32", 4, lambda: np.zeros(16, np.uint8))
        with pytest.raises(CorruptionError, match="'a' reaches outside"):
            write(tmp_path / f"a{suffix}", Checkpoint((entry,), (base,)))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_a_failing_base_leaves_no_file(self, tmp_path: Path, suffix: str) -> None:
        def fail() -> np.ndarray[Any, np.dtype[np.uint8]]:
            raise CorruptionError("the digest does not match")

        checkpoint = Checkpoint((Entry("a", (4,), 0),), (Base("F32", 4, fail),))
        with pytest.raises(CorruptionError, match="digest"):
            write(tmp_path / f"a{suffix}", checkpoint)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_on_a_device(assert_identical: Compare) -> None:
    weight = torch.randn(5, 3, device="cuda")
    state = {"a": weight, "b": weight.t(), "c": weight.clone().t()}
    checkpoint = from_state_dict(state)
    assert [base.numel for base in checkpoint.bases] == [15, 15]
    assert_identical(to_state_dict(checkpoint), state)
