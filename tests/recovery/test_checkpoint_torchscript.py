"""TorchScript archives: the state dict of torch.jit.load, without torch.jit.load."""

# No postponed annotations: torch.jit.script cannot read them.
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from momos_rs.checkpoint import from_state_dict, read, to_state_dict, write
from momos_rs.errors import InvalidArgumentError, UnsafeFileError

Make = Callable[[], torch.nn.Module]
Compare = Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def load(path: Path) -> dict[str, torch.Tensor]:
    """What torch itself takes the state dict to be."""
    state: dict[str, torch.Tensor] = torch.jit.load(path).state_dict()
    return state


class Branches(torch.nn.Module):
    """Everything the order and naming of a state dict depends on."""

    early: torch.Tensor
    transient: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.factor = 2.0
        self.register_buffer("early", torch.arange(3))
        self.second = torch.nn.Linear(4, 4, bias=False)
        self.alone = torch.nn.Parameter(torch.randn(4))
        self.first = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
        self.shared = self.second
        self.tied = torch.nn.Linear(4, 4)
        self.tied.weight = self.second.weight
        self.frozen = torch.nn.Parameter(torch.randn(2), requires_grad=False)
        self.several = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Identity()])
        self.plain_tensor = torch.ones(7)
        self.register_buffer("transient", torch.ones(2), persistent=False)
        self.register_parameter("absent", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.shared(self.second(x))) + self.alone + self.plain_tensor.sum()
        for module in self.several:
            x = module(x)
        extra = self.frozen.sum() + self.early.sum() + self.transient.sum()
        result: torch.Tensor = self.tied(x) * self.factor + extra
        return result


def archive(module: torch.nn.Module, path: Path, how: str) -> None:
    module.eval()
    if how == "script":
        result = torch.jit.script(module)
    else:
        result = torch.jit.trace(module, torch.randn(5, 4), check_trace=False)
    torch.jit.save(result, path)


class TestParity:
    @pytest.mark.parametrize("how", ["script", "trace"])
    @pytest.mark.parametrize(
        "make",
        [
            Branches,
            lambda: torch.nn.Linear(4, 3),
            lambda: torch.nn.Sequential(
                torch.nn.Linear(4, 4).half(), torch.nn.Linear(4, 4).double()
            ),
            lambda: torch.nn.Sequential(
                *[torch.nn.Sequential(torch.nn.Linear(4, 4)) for _ in range(12)]
            ),
        ],
    )
    def test_the_state_dict_is_that_of_torch_jit(
        self,
        tmp_path: Path,
        assert_identical: Compare,
        how: str,
        make: Make,
    ) -> None:
        path = tmp_path / "a.pt"
        module = make()
        if how == "trace" and not isinstance(module, Branches):
            module = module.float()
        archive(module, path, how)
        checkpoint = read(path)
        expected = load(path)
        assert len(expected) > 1
        assert_identical(to_state_dict(checkpoint), expected)
        assert checkpoint.format == "torchscript"
        assert checkpoint.left_out[0] == "code"

    def test_ties_are_kept(self, tmp_path: Path) -> None:
        archive(Branches(), tmp_path / "a.pt", "script")
        bases = {entry.name: entry.base for entry in read(tmp_path / "a.pt").entries}
        assert bases["second.weight"] == bases["shared.weight"] == bases["tied.weight"]
        assert bases["first.0.weight"] != bases["second.weight"]

    def test_plain_tensors_are_named_as_left_out(self, tmp_path: Path) -> None:
        archive(Branches(), tmp_path / "a.pt", "script")
        assert "plain_tensor" in read(tmp_path / "a.pt").left_out

    def test_it_is_unpacked_as_a_state_dict(
        self, tmp_path: Path, assert_identical: Compare
    ) -> None:
        module = Branches()
        archive(module, tmp_path / "a.pt", "script")
        write(tmp_path / "b.pt", read(tmp_path / "a.pt"))
        loaded = torch.load(tmp_path / "b.pt", weights_only=True)
        assert_identical(loaded, load(tmp_path / "a.pt"))

    @pytest.mark.skipif(
        importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
    )
    def test_torchvision(self, tmp_path: Path, assert_identical: Compare) -> None:
        import torchvision

        path = tmp_path / "a.pt"
        torch.jit.save(torch.jit.script(torchvision.models.mobilenet_v3_small().eval()), path)
        assert_identical(to_state_dict(read(path)), load(path))


class TestSafety:
    def test_torch_jit_is_not_called(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbidden(*_: object, **__: object) -> None:
            raise AssertionError("torch.jit.load can run code of the file")

        archive(Branches(), tmp_path / "a.pt", "script")
        monkeypatch.setattr(torch.jit, "load", forbidden)
        assert read(tmp_path / "a.pt").entries

    def test_without_weights(self, tmp_path: Path) -> None:
        frozen = torch.jit.freeze(torch.jit.script(torch.nn.Linear(4, 4).eval()))
        torch.jit.save(frozen, tmp_path / "a.pt")
        with pytest.raises(InvalidArgumentError, match="freeze"):
            read(tmp_path / "a.pt")

    def test_states_of_their_own_kind(self, tmp_path: Path, assert_identical: Compare) -> None:
        class Packed(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(3))
                self.training = False

            @torch.jit.export
            def __getstate__(self) -> tuple[torch.Tensor, bool]:
                return self.weight * 2, self.training

            @torch.jit.export
            def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
                self.weight = state[0]  # type: ignore[assignment]
                self.training = state[1]

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * self.weight

        path = tmp_path / "a.pt"
        torch.jit.save(torch.jit.script(Packed()), path)
        with pytest.raises(UnsafeFileError, match=r"state of its own kind.*--allow-pickle"):
            read(path)
        assert_identical(to_state_dict(read(path, allow_pickle=True)), load(path))


def test_a_script_module_in_memory(assert_identical: Compare) -> None:
    module = torch.jit.script(Branches())
    assert_identical(to_state_dict(from_state_dict(module)), module.state_dict())
