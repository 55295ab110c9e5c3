"""Where the weights are found in what training scripts save, and what is said to be left out."""

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

from momos_rs.checkpoint import Checkpoint, from_state_dict, read, to_state_dict
from momos_rs.checkpoint.state_dict import AVERAGED_KEYS, USUAL_KEYS
from momos_rs.errors import InvalidArgumentError, UnsafeFileError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore:.*quantize_per_tensor")

Compare = Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]


class Settings:
    """A class of a training script, to be pickled beside the weights."""

    def __init__(self) -> None:
        self.rate = 0.1


class Network(torch.nn.Module):
    """A class of a training script that holds the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


STATE = OrderedDict(
    [
        ("conv.weight", torch.randn(3, 2)),
        ("conv.bias", torch.randn(3)),
        ("bn.num_batches_tracked", torch.tensor(4)),
    ]
)
OTHER = {"conv.weight": torch.randn(2, 2)}


def optimizer_state() -> dict[str, Any]:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.fixture(params=["zip", "legacy"])
def save_and_read(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Any], Checkpoint]:
    def through_file(value: Any) -> Checkpoint:
        path = tmp_path / "in.pt"
        torch.save(value, path, _use_new_zipfile_serialization=request.param == "zip")
        return read(path)

    return through_file


SaveAndRead = Callable[[Any], Checkpoint]


class TestUsualKeys:
    @pytest.mark.parametrize("key", [*USUAL_KEYS, *AVERAGED_KEYS])
    def test_each(self, save_and_read: SaveAndRead, assert_identical: Compare, key: str) -> None:
        checkpoint = save_and_read({"epoch": 3, key: STATE, "optimizer": optimizer_state()})
        assert_identical(to_state_dict(checkpoint), STATE)
        assert checkpoint.left_out == ("epoch", "optimizer")

    def test_at_any_depth(self, save_and_read: SaveAndRead, assert_identical: Compare) -> None:
        nested = {"state": {"model": {"state_dict": STATE, "version": 1}}, "step": 2}
        checkpoint = save_and_read(nested)
        assert_identical(to_state_dict(checkpoint), STATE)
        assert checkpoint.left_out == ("state.model.version", "step")

    def test_a_plain_state_dict(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        checkpoint = save_and_read(STATE)
        assert_identical(to_state_dict(checkpoint), STATE)
        assert checkpoint.left_out == ()

    def test_several_beside_an_average(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        checkpoint = save_and_read({"model": OTHER, "state_dict_ema": OTHER, "state_dict": STATE})
        expected = {f"model.{name}": each for name, each in OTHER.items()}
        expected |= {f"state_dict.{name}": each for name, each in STATE.items()}
        assert_identical(to_state_dict(checkpoint), expected)
        assert checkpoint.left_out == ("state_dict_ema",)

    def test_usual_keys_without_weights_are_passed_over(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        checkpoint = save_and_read({"model": "resnet18", "state_dict": {}, "net": STATE})
        assert_identical(to_state_dict(checkpoint), STATE)
        assert checkpoint.left_out == ("model", "state_dict")

    def test_lightning(self, save_and_read: SaveAndRead, assert_identical: Compare) -> None:
        checkpoint = save_and_read(
            {
                "epoch": 1,
                "pytorch-lightning_version": "2.0",
                "state_dict": STATE,
                "loops": {"fit_loop": {"state_dict": {}}},
                "optimizer_states": [optimizer_state()],
                "hyper_parameters": {"lr": 0.1},
            }
        )
        assert_identical(to_state_dict(checkpoint), STATE)
        assert "optimizer_states" in checkpoint.left_out

    def test_metrics_are_not_weights(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        for key in ("state_dict", "my_network"):
            checkpoint = save_and_read({"best_acc1": torch.tensor(77.0), key: STATE})
            assert_identical(to_state_dict(checkpoint), STATE)
            assert checkpoint.left_out == ("best_acc1",)


class TestOtherKeys:
    def test_a_single_unknown_key_leaves_the_names_alone(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        checkpoint = save_and_read({"backbone": STATE, "optim_g": {"x": torch.ones(3)}})
        assert_identical(to_state_dict(checkpoint), STATE)
        assert checkpoint.left_out == ("optim_g",)

    def test_several_are_taken_with_prefixes(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        checkpoint = save_and_read(
            {"generator": STATE, "step": 1, "discriminator": {"state_dict": OTHER, "lr": 1}}
        )
        expected = {f"generator.{name}": each for name, each in STATE.items()}
        expected |= {f"discriminator.{name}": each for name, each in OTHER.items()}
        assert_identical(to_state_dict(checkpoint), expected)
        assert checkpoint.left_out == ("step", "discriminator.lr")

    def test_tensors_beside_nested_ones_are_kept(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        checkpoint = save_and_read(
            {"scale": torch.ones(3), "layer": OTHER, "count": torch.tensor(1)}
        )
        expected = {
            "scale": torch.ones(3),
            "layer.conv.weight": OTHER["conv.weight"],
            "count": torch.tensor(1),
        }
        assert_identical(to_state_dict(checkpoint), expected)

    def test_a_sequence_of_state_dicts(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        checkpoint = save_and_read((STATE, optimizer_state(), 7))
        assert_identical(to_state_dict(checkpoint), STATE)
        assert checkpoint.left_out == ("1", "2")

    def test_what_is_no_tensor_in_a_state_dict_is_left_out(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        extra = {
            "fc._extra_state": {"scale": torch.ones(2)},
            "bias": None,
            "names": ["a"],
            "history": [torch.ones(1)],
        }
        checkpoint = save_and_read({"state_dict": {**STATE, **extra}})
        assert_identical(to_state_dict(checkpoint), STATE)
        assert checkpoint.left_out == tuple(f"state_dict.{name}" for name in extra)

    def test_names_that_would_collide(self, save_and_read: SaveAndRead) -> None:
        with pytest.raises(InvalidArgumentError, match=r"two tensors named 'a\.w'"):
            save_and_read({"a": {"w": torch.ones(2)}, "a.w": torch.ones(2)})


class TestNoWeights:
    @pytest.mark.parametrize(
        "value",
        [
            {},
            {"epoch": 3},
            {0: torch.ones(2)},
            optimizer_state(),
            {"optimizer": {"moments": torch.ones(3)}},
            [torch.ones(2)],
            "text",
            None,
        ],
    )
    def test_is_told(self, save_and_read: SaveAndRead, value: Any) -> None:
        with pytest.raises(InvalidArgumentError, match=r"in.pt holds no named tensors; "):
            save_and_read(value)

    def test_a_bare_tensor(self, save_and_read: SaveAndRead) -> None:
        with pytest.raises(InvalidArgumentError, match="it is a Tensor; save a state dict"):
            save_and_read(torch.ones(3))

    def test_cycles_end(self, save_and_read: SaveAndRead, assert_identical: Compare) -> None:
        cycle: dict[str, Any] = {"epoch": 1}
        cycle["model"] = cycle
        with pytest.raises(InvalidArgumentError, match="no named tensors"):
            save_and_read(cycle)
        cycle["weights"] = STATE
        assert_identical(to_state_dict(save_and_read(cycle)), STATE)

    @pytest.mark.parametrize("leaf", [{"w": torch.ones(2)}, {"x": 1}])
    def test_shared_containers_do_not_multiply(
        self, save_and_read: SaveAndRead, leaf: dict[str, Any]
    ) -> None:
        value = leaf
        for _ in range(30):
            value = {"a": value, "b": value}
        with pytest.raises(InvalidArgumentError, match=r"names|no named tensors"):
            save_and_read(value)

    def test_deep_nesting_is_no_crash(self, tmp_path: Path) -> None:
        # As bytes: the pickler of Python itself cannot nest that deeply.
        depth = 50_000
        body = b"\x80\x02" + b"}X\x05\0\0\0model" * depth + b"}" + b"s" * depth + b"."
        head = b"".join(
            pickle.dumps(each, 2)
            for each in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        )
        (tmp_path / "in.pt").write_bytes(head + body + pickle.dumps([], 2))
        with pytest.raises(InvalidArgumentError, match="no named tensors"):
            read(tmp_path / "in.pt")


class TestCompany:
    """Objects beside the weights are harmless: they are neither needed nor made."""

    @pytest.mark.parametrize(
        "company",
        [
            argparse.Namespace(lr=0.1),
            np.float64(3.5),
            np.arange(3),
            Settings(),
            Path("somewhere"),
            {1, 2},
            1 + 2j,
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_is_left_out(
        self, save_and_read: SaveAndRead, assert_identical: Compare, company: Any
    ) -> None:
        tied = {**STATE, "again": STATE["conv.weight"], "slice": STATE["conv.bias"][1:]}
        parameter = {"p": torch.nn.Parameter(torch.ones(2)), "b": torch.ones(3).bfloat16()}
        state = {**tied, **parameter, "empty": torch.ones(0, 3)}
        checkpoint = save_and_read({"state_dict": state, "args": company})
        assert_identical(to_state_dict(checkpoint), state)
        assert checkpoint.left_out == ("args",)
        bases = {entry.name: entry.base for entry in checkpoint.entries}
        assert bases["again"] == bases["conv.weight"]
        assert bases["slice"] == bases["conv.bias"]

    def test_every_storage_type(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        dtypes = (
            *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
            *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
            *(torch.complex64, torch.complex128),
        )
        state = {str(each): torch.arange(4).to(each) for each in dtypes}
        checkpoint = save_and_read({"model": state, "args": Settings()})
        assert_identical(to_state_dict(checkpoint), state)

    def test_newer_types(self, tmp_path: Path, assert_identical: Compare) -> None:
        dtypes = (torch.float8_e4m3fn, torch.uint16, torch.uint64)
        state = {
            str(each): torch.arange(4, dtype=torch.uint8).view(torch.uint8).to(each)
            for each in dtypes
        }
        torch.save({"model": state, "args": Settings()}, tmp_path / "in.pt")
        assert_identical(to_state_dict(read(tmp_path / "in.pt")), state)


class TestModules:
    def test_are_refused(self, save_and_read: SaveAndRead) -> None:
        with pytest.raises(UnsafeFileError, match=r"in.pt is a pickled .*Network .*--allow-pickle"):
            save_and_read(Network())

    @pytest.mark.parametrize("key", ["model", "anything"])
    def test_are_refused_within(self, save_and_read: SaveAndRead, key: str) -> None:
        with pytest.raises(UnsafeFileError, match=rf"'{key}' in .* is a pickled .*Network"):
            save_and_read({"epoch": 1, key: Network()})

    def test_are_not_passed_over_for_an_average(self, save_and_read: SaveAndRead) -> None:
        with pytest.raises(UnsafeFileError, match="'model' in"):
            save_and_read({"model": Network(), "ema": STATE})

    def test_do_not_hinder_a_state_dict_of_precedence(
        self, save_and_read: SaveAndRead, assert_identical: Compare
    ) -> None:
        checkpoint = save_and_read({"state_dict": STATE, "model": Network()})
        assert_identical(to_state_dict(checkpoint), STATE)

    @pytest.mark.parametrize(
        "wrap", [lambda module: module, lambda module: {"model": module, "epoch": 1}]
    )
    @pytest.mark.parametrize("zipped", [True, False])
    def test_are_loaded_on_request(
        self, tmp_path: Path, assert_identical: Compare, wrap: Callable[[Any], Any], zipped: bool
    ) -> None:
        module = Network()
        path = tmp_path / "in.pt"
        torch.save(wrap(module), path, _use_new_zipfile_serialization=zipped)
        assert_identical(to_state_dict(read(path, allow_pickle=True)), module.state_dict())

    def test_whose_code_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "in.pt"
        torch.save(Network(), path)
        monkeypatch.delattr(f"{__name__}.Network")
        with pytest.raises(UnsafeFileError, match=r"needs code that is not installed: .*Network"):
            read(path, allow_pickle=True)


class TestUnusualTensors:
    def test_sparse(self, save_and_read: SaveAndRead) -> None:
        with pytest.raises(InvalidArgumentError, match=r"tensor 'w' .*sparse_coo.*to_dense"):
            save_and_read({"w": torch.eye(3).to_sparse()})

    def test_quantised(self, save_and_read: SaveAndRead) -> None:
        value = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)
        with pytest.raises(InvalidArgumentError, match=r"tensor 'w' .*dequantize"):
            save_and_read({"w": value})
        with pytest.raises(InvalidArgumentError, match=r"'fc\._packed' .*quantised"):
            save_and_read({"fc.scale": torch.ones(1), "fc._packed": (value, None)})

    def test_without_data(self, save_and_read: SaveAndRead) -> None:
        with pytest.raises(InvalidArgumentError, match="meta device"):
            save_and_read({"w": torch.empty(3, device="meta")})

    def test_nested(self) -> None:
        value = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        with pytest.raises(InvalidArgumentError, match="'w' cannot be carried: it is"):
            from_state_dict({"w": value})

    def test_uninitialised(self) -> None:
        with pytest.raises(InvalidArgumentError, match=r"'weight' .*not initialised"):
            from_state_dict(torch.nn.LazyLinear(3))

    def test_types_that_torch_cannot_save(self) -> None:
        with pytest.raises(InvalidArgumentError, match=r"torch\.uint4"):
            from_state_dict({"w": torch.empty(2, dtype=vars(torch)["uint4"])})

    def test_subclasses_over_plain_memory_are_plain(self, assert_identical: Compare) -> None:
        class Tagged(torch.Tensor):
            pass

        value = torch.ones(3)
        restored = to_state_dict(from_state_dict({"w": value.as_subclass(Tagged)}))
        assert_identical(restored, {"w": value})
