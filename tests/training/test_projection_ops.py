"""The nearest-motif operator: every kernel against brute force in float64."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from momos_rs.errors import InvalidArgumentError
from momos_rs.ops import nearest_motifs, torch_nearest

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def brute_force(blocks: Tensor, motifs: Tensor) -> Tensor:
    distances = (blocks.double()[:, None] - motifs.double()[None]).square().sum(dim=2)
    best = distances.amin(dim=1, keepdim=True)
    return (distances == best).int().argmax(dim=1)


def adversarial_cases() -> list[tuple[str, Tensor, Tensor]]:
    """Blocks and motifs that single precision alone gets wrong."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    cases = [(f"gaussian s={s}", normal(150, s), normal(90, s)) for s in (1, 2, 3, 4, 8, 33)]
    grid = torch.randint(-2, 3, (200, 4), generator=generator).float()
    cases.append(("exact ties", grid, grid[:120].clone()))
    repeated = normal(10, 4)[torch.randint(10, (90,), generator=generator)]
    cases.append(("duplicate motifs", normal(100, 4), repeated))
    cases.append(("signed zeros", torch.zeros(4, 3), torch.tensor([[-0.0] * 3, [0.0] * 3])))
    base = normal(1, 4) + 100
    cases.append(("near ties", base + 1e-5 * normal(80, 4), base + 1e-5 * normal(70, 4)))
    scales = 10.0 ** torch.linspace(-20, 3, 150)[:, None]
    cases.append(("many scales", scales * normal(150, 4), scales[::2] * normal(75, 4)))
    cases.append(("subnormal", 1e-42 * normal(60, 4), 1e-42 * normal(40, 4)))
    cases.append(("huge", 1e37 * normal(60, 4), 1e37 * normal(40, 4)))
    cases.append(("one motif", normal(20, 4), normal(1, 4)))
    cases.append(("no blocks", normal(0, 4), normal(5, 4)))
    cases.append(("float64", normal(80, 5).double(), normal(60, 5).double()))
    return cases


CASES = adversarial_cases()


@pytest.mark.parametrize(("blocks", "motifs"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_operator_and_torch_fallback_equal_brute_force(blocks: Tensor, motifs: Tensor) -> None:
    expected = brute_force(blocks, motifs)
    assert torch.equal(nearest_motifs(blocks, motifs), expected)
    assert torch.equal(torch_nearest.nearest_motifs(blocks, motifs), expected)


def test_torch_fallback_bounds_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, motifs = torch.randn(500, 4), torch.randn(64, 4)
    expected = brute_force(blocks, motifs)
    largest = 0
    original = torch_nearest._squared_distances

    def watched(some: Tensor, all_motifs: Tensor) -> Tensor:
        nonlocal largest
        result = original(some, all_motifs)
        largest = max(largest, result.numel())
        return result

    monkeypatch.setattr(torch_nearest, "_squared_distances", watched)
    monkeypatch.setattr(torch_nearest, "_DISTANCES_AT_ONCE", 1000)
    assert torch.equal(torch_nearest.nearest_motifs(blocks, motifs), expected)
    assert 0 < largest <= 1000


@needs_triton
def test_triton_kernel_equals_brute_force_in_the_interpreter(tmp_path: Path) -> None:
    file = tmp_path / "cases.pt"
    torch.save([(name, blocks, motifs) for name, blocks, motifs in CASES], file)
    program = f"""
import torch
from momos_rs.ops.triton_nearest import nearest_motifs, without_duplicates
answers = [nearest_motifs(b, m) for _, b, m in torch.load({str(file)!r})]
torch.save(answers, {str(tmp_path / "answers.pt")!r})
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = torch.load(tmp_path / "answers.pt")
    for (name, blocks, motifs), answer in zip(CASES, answers, strict=True):
        assert torch.equal(answer, brute_force(blocks, motifs)), name


@needs_triton
def test_duplicates_are_merged_to_their_first_index() -> None:
    from momos_rs.ops.triton_nearest import without_duplicates

    motifs = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0], [-0.0, 0.0], [2.0, 1.0]])
    distinct, first = without_duplicates(motifs)
    assert first.tolist() == [0, 1, 4]
    assert torch.equal(distinct, motifs[[0, 1, 4]])


def test_opcheck() -> None:
    for dtype in (torch.float32, torch.float64):
        arguments = (torch.randn(9, 3, dtype=dtype), torch.randn(4, 3, dtype=dtype))
        torch.library.opcheck(torch.ops.momos.nearest_motifs.default, arguments)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_operator_compiles_into_one_graph(backend: str) -> None:
    def codes(blocks: Tensor, motifs: Tensor) -> Tensor:
        return motifs[nearest_motifs(blocks * 2, motifs)]

    compiled = torch.compile(codes, backend=backend, fullgraph=True)
    for m in (10, 17):
        blocks, motifs = torch.randn(m, 4), torch.randn(6, 4)
        assert torch.equal(compiled(blocks, motifs), codes(blocks, motifs))


def test_operator_has_no_gradient() -> None:
    blocks = torch.randn(5, 4, requires_grad=True)
    assert not nearest_motifs(blocks, torch.randn(3, 4)).requires_grad


@pytest.mark.parametrize(
    ("blocks", "motifs", "message"),
    [
        (torch.ones(3), torch.ones(2, 3), r"\(m, s\) and \(k, s\)"),
        (torch.ones(3, 2), torch.ones(2, 3), r"\(m, s\) and \(k, s\)"),
        (torch.ones(3, 2), torch.ones(0, 2), "at least one motif"),
        (torch.ones(3, 2).half(), torch.ones(1, 2).half(), "float32 or float64"),
        (torch.ones(3, 2), torch.ones(1, 2).double(), "float32 or float64"),
        (torch.ones(3, 2), torch.ones(1, 2, device="meta"), "move one"),
    ],
)
def test_bad_arguments(blocks: Tensor, motifs: Tensor, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        nearest_motifs(blocks, motifs)


@needs_cuda
@pytest.mark.parametrize(("blocks", "motifs"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_cuda_kernels_equal_brute_force(blocks: Tensor, motifs: Tensor) -> None:
    expected = brute_force(blocks, motifs)
    assert torch.equal(nearest_motifs(blocks.cuda(), motifs.cuda()).cpu(), expected)
    assert torch.equal(torch_nearest.nearest_motifs(blocks.cuda(), motifs.cuda()).cpu(), expected)


@needs_cuda
def test_cuda_operator_compiles_and_checks() -> None:
    arguments = (torch.randn(9, 3, device="cuda"), torch.randn(4, 3, device="cuda"))
    torch.library.opcheck(torch.ops.momos.nearest_motifs.default, arguments)
