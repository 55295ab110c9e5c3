"""Measuring models: what is measured, against pybdm and the standard library, and what is said."""

import bz2
import gzip
import json
import lzma
import math
import warnings

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import momos_rs
import momos_rs.complexity as C  # noqa: N812
from momos_rs import _core
from momos_rs.checkpoint import Base, Checkpoint, Entry
from momos_rs.complexity.compression import StreamCompressor, Workers
from momos_rs.complexity.counting import BitStream, random_bdm
from momos_rs.complexity.tables import model_row, tensor_rows, to_csv
from momos_rs.errors import InvalidArgumentError
from momos_rs.mosaic.mosaic import mosaic_bound, motif_count

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pybdm

FAST = ("sparsity", "norm", "bdm", "bdm_2d", "qubd", "bound")


def small_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(40, 30)
    )


def signs_of(tensors):
    return torch.cat([tensor.detach().flatten() > 0 for tensor in tensors]).numpy().astype(int)


def test_the_papers_measure_is_pybdms_over_all_parameters_in_order():
    model = small_model()
    report = C.measure(model.state_dict(), measures=FAST)
    bits = signs_of(model.parameters())
    reference = pybdm.BDM(ndim=1)
    assert report.signs.bits == report.n == bits.size
    assert report.signs.bdm == pytest.approx(reference.bdm(bits), rel=1e-12)
    assert report.signs.entropy == pytest.approx(reference.ent(bits), rel=1e-9)
    assert report.signs.saturation == report.signs.distinct / 4096
    assert [each.name for each in report.left_out] == [
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]
    # A module says itself what its parameters are.
    assert C.measure(model, measures=FAST).signs == report.signs
    assert momos_rs.measure_complexity(model, measures=FAST).signs == report.signs


def test_tensors_one_by_one():
    model = small_model()
    report = C.measure(model, measures=FAST, bits=4)
    one, two = pybdm.BDM(ndim=1), pybdm.BDM(ndim=2)
    for name, parameter in model.named_parameters():
        found = report.tensor(name)
        values = parameter.detach()
        assert (found.n, found.shape) == (values.numel(), tuple(values.shape))
        assert found.sparsity == (values == 0).double().mean().item()
        assert found.l2 == pytest.approx(values.double().norm().item(), rel=1e-12)
        if values.numel() >= 12:
            assert found.signs.bdm == pytest.approx(one.bdm(signs_of([values])), rel=1e-12)
        if values.dim() > 1:
            plane = (values.flatten(1) > 0).numpy().astype(int)
            assert found.bdm_2d.bdm == pytest.approx(two.bdm(plane), rel=1e-12)
            assert found.qubd is not None
            assert len(found.qubd) == 4
        else:
            assert found.bdm_2d is None
            assert found.qubd is None
    sums = np.sum([each.qubd for each in report.tensors if each.qubd], axis=0)
    np.testing.assert_allclose(report.qubd.planes, sums)
    assert report.qubd.total == pytest.approx(sums.sum())
    assert report.qubd.skipped == 4
    norms = [each.l2 for each in report.tensors]
    assert report.l2 == pytest.approx(math.hypot(*(norm or 0.0 for norm in norms)), rel=1e-12)
    with pytest.raises(KeyError):
        report.tensor("nothing")


def test_the_bound_is_that_of_packing():
    report = C.measure(small_model(), measures=["bound"], block_size=5, capacity=0.1)
    blocks = sum(math.ceil(each.n / 5) for each in report.tensors)
    motifs = motif_count(blocks, 0.1)
    assert (report.bound.blocks, report.bound.motifs) == (blocks, motifs)
    assert report.bound.bits == mosaic_bound(blocks, motifs, 5, 32)
    assert report.bound.ratio == report.bound.bits / (32 * report.n)


def test_only_what_was_asked_for_is_measured():
    report = C.measure(small_model(), measures=["sparsity"])
    measured = report.to_dict()
    for name in ("l2", "signs", "bdm_2d", "qubd", "bound", "baseline"):
        assert measured[name] is None
    assert measured["compression"] == ()
    json.dumps(C.measure(small_model(), measures=FAST).to_dict(), allow_nan=False)


def test_ties_are_counted_once_and_named():
    shared = torch.randn(16, 16)
    state = {"in": shared, "out": shared, "part": shared[:4]}
    report = C.measure(state, measures=["bdm"])
    assert report.n == 256 + 64
    assert [(each.name, each.reason) for each in report.left_out] == [("out", "tied to in")]


def test_views_are_read_in_their_own_order():
    values = np.arange(12, dtype="<f4") - 5
    base = Base("F32", 12, lambda: values.view(np.uint8))
    transposed = Entry("w", (4, 3), 0, 0, (1, 4))
    report = C.measure(Checkpoint((transposed,), (base,)), measures=["bdm"])
    expected = C.measure(np.ascontiguousarray(values.reshape(3, 4).T), measures=["bdm"])
    assert report.signs == expected.signs


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2],
)
def test_weights_of_any_floating_type(dtype):
    torch.manual_seed(1)
    weights = torch.randn(50, 60).to(dtype)
    found = C.measure(weights, measures=FAST)
    wide = C.measure(weights.double().float(), measures=FAST)
    assert found.signs == wide.signs
    assert found.bdm_2d == wide.bdm_2d
    assert found.l2 == pytest.approx(wide.l2)
    assert found.sparsity == wide.sparsity
    if dtype != torch.float64:
        assert found.qubd == wide.qubd


def test_parametrized_weights_are_measured_as_computed():
    layer = torch.nn.Linear(20, 20)

    class Positive(torch.nn.Module):
        def forward(self, weights):
            return weights.abs()

    torch.nn.utils.parametrize.register_parametrization(layer, "weight", Positive())
    report = C.measure(layer, measures=["bdm"])
    assert [each.name for each in report.tensors] == ["weight", "bias"]
    assert report.tensor("weight").signs.distinct == 1


def test_frozen_and_shared_parameters_of_a_module():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    model[1].weight = model[0].weight
    model[0].requires_grad_(False)
    assert C.measure(model, measures=["bdm"]).n == 64 + 8 + 8


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(bad):
    state = {"fine": torch.randn(8, 8), "broken": torch.randn(8, 8)}
    state["broken"][2, 3] = bad
    with pytest.raises(InvalidArgumentError, match=r"'broken' has 1 (NaN|infinite) weights; leave"):
        C.measure(state, measures=FAST)
    skipped = C.measure(state, measures=FAST, non_finite="skip")
    assert skipped.n == 64
    assert skipped.left_out[0].name == "broken"
    zeroed = C.measure(state, measures=FAST, non_finite="zero")
    expected = {"fine": state["fine"], "broken": state["broken"].nan_to_num(0, 0, 0)}
    assert zeroed.signs == C.measure(expected, measures=FAST).signs
    with pytest.raises(InvalidArgumentError, match="non_finite must be one of"):
        C.measure(state, non_finite="ignore")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="no tensor has finite weights only"):
        C.measure({"broken": state["broken"]}, non_finite="skip")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "no trainable weights"),
        ({"count": torch.arange(4)}, "no trainable weights"),
        ({"empty": torch.zeros(0)}, "no trainable weights"),
        (torch.arange(4), "holds no weights"),
        (np.arange(4), "holds no weights"),
        (7, "cannot measure a int"),
        ({"a": torch.zeros(4)}, "no measure 'colour'"),
    ],
)
def test_what_cannot_be_measured(source, message):
    measures = ["colour"] if "colour" in message else FAST
    with pytest.raises(InvalidArgumentError, match=message):
        C.measure(source, measures=measures)


def test_scalars_vectors_and_tiny_tensors_are_no_trouble():
    state = {"scalar": torch.tensor(1.0), "few": torch.ones(5), "matrix": torch.ones(3, 2)}
    report = C.measure(state)
    assert report.signs.blocks == 1
    assert report.tensor("scalar").signs.blocks == 0
    assert report.tensor("scalar").signs.random_ratio == 1.0
    assert report.bdm_2d.blocks == 0


def test_threads_do_not_change_the_figures():
    torch.manual_seed(2)
    state = {"a": torch.randn(700, 900), "b": torch.randn(1_000_003)}
    one, three = (C.measure(state, measures=FAST, threads=count) for count in (1, 3))
    assert one.to_dict() | {"seconds": 0} == three.to_dict() | {"seconds": 0}


# Compressors


def test_compressors_are_those_of_the_standard_library():
    torch.manual_seed(0)
    weights = (torch.randn(300, 200) * 3).round() / 8
    raw = weights.numpy().tobytes()
    packed = np.packbits(weights.numpy().ravel() > 0, bitorder="little").tobytes()
    report = C.measure(weights, measures=["gzip", "bz2", "lzma", "zstd"])
    for of, data in (("weights", raw), ("signs", packed)):
        sizes = {
            "gzip": len(gzip.compress(data)),
            "bz2": len(bz2.compress(data)),
            "lzma": len(lzma.compress(data)),
            "zstd": len(zstandard.ZstdCompressor().compress(data)),
        }
        found = {each.name: each for each in report.compression if each.of == of}
        assert {name: each.bytes_in for name, each in found.items()} == dict.fromkeys(
            sizes, len(data)
        )
        for name, size in sizes.items():
            assert found[name].bytes_out == pytest.approx(size, abs=8)
            assert found[name].ratio == found[name].bytes_out / len(data)


def test_segments_cost_next_to_nothing():
    rng = np.random.default_rng(0)
    data = rng.normal(size=1_000_000).astype("<f4").view(np.uint8)
    with Workers(2) as workers:
        compressor = StreamCompressor(["gzip"], of="weights", total=data.size, workers=workers)
        for part in np.array_split(data, [7, 100_000, 2_000_001]):
            compressor.feed(part)
        (found,) = compressor.finish()
    assert found.bytes_in == data.size
    assert found.bytes_out == pytest.approx(len(gzip.compress(data.tobytes())), rel=1e-3)


def test_slow_compressors_can_be_given_a_sample():
    data = np.random.default_rng(0).integers(0, 9, 4_000_000, np.uint8)
    names = ["bz2", "lzma", "zstd"]
    with Workers(2) as workers:
        compressor = StreamCompressor(
            names, of="weights", total=data.size, sample=1_000_000, workers=workers
        )
        compressor.feed(data[:1_700_000])
        compressor.feed(data[1_700_000:])
        found = {each.name: each for each in compressor.finish()}
    assert found["bz2"].sampled
    assert found["bz2"].bytes_in <= 1_000_000
    assert not found["zstd"].sampled
    assert found["zstd"].bytes_in == data.size
    whole = len(bz2.compress(data.tobytes())) / data.size
    assert found["bz2"].ratio == pytest.approx(whole, rel=0.01)


def test_compressing_tensors_by_themselves():
    report = C.measure(small_model(), measures=["zstd"], per_tensor_compression=True)
    for tensor in report.tensors:
        assert [each.name for each in tensor.compression] == ["zstd"]
        assert tensor.compression[0].bytes_in == 4 * tensor.n


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(0, 70), max_size=8))
def test_packed_bits_join_to_one_stream(lengths):
    rng = np.random.default_rng(sum(lengths))
    parts = [rng.integers(0, 2, length, np.uint8) for length in lengths]
    stream = BitStream()
    joined = [stream.append(np.packbits(part, bitorder="little"), part.size) for part in parts]
    joined.append(stream.finish())
    expected = np.packbits(np.concatenate([*parts, np.zeros(0, np.uint8)]), bitorder="little")
    assert np.array_equal(np.concatenate(joined), expected)


# Controls


def test_random_signs_are_known_for_what_they_are():
    torch.manual_seed(5)
    report = C.measure(torch.randn(1500, 1500), measures=["bdm", "bdm_2d"])
    assert report.signs.random_ratio == pytest.approx(1, abs=1e-4)
    assert report.bdm_2d.random_ratio == pytest.approx(1, abs=1e-2)
    assert report.signs.randomness_z is not None
    assert abs(report.signs.randomness_z) < 4
    assert report.signs.entropy_corrected == pytest.approx(12, abs=1e-3)
    assert report.signs.entropy < report.signs.entropy_corrected
    assert any("saturated: 4,096 of 4,096" in note for note in report.notes)
    assert any("cannot be told from fair coin flips" in note for note in report.notes)


def test_structure_is_told_from_noise_when_the_measure_is_saturated():
    torch.manual_seed(5)
    weights = torch.randn(1500, 1500)
    # In every other row two of twelve signs agree; still every block occurs.
    weights[::2, 1::12] = weights[::2, ::12]
    report = C.measure(weights, measures=["bdm", "bdm_2d"])
    assert report.signs.saturation == 1
    assert (report.signs.randomness_z or 0) > 100
    assert any("differ from fair coin flips" in note for note in report.notes)


@pytest.mark.parametrize(("blocks", "possible"), [(50, 4096), (20_000, 4096), (30_000, 65536)])
def test_the_expected_bdm_of_random_blocks(blocks, possible):
    rng = np.random.default_rng(0)
    table = _core.ctm_strings(12) if possible == 4096 else None
    if table is None:
        table = _core.ctm_squares(4)
    draws = []
    for _ in range(30):
        counts = np.bincount(rng.integers(0, possible, blocks), minlength=possible)
        seen = counts > 0
        draws.append(table[seen].sum() + np.log2(counts[seen]).sum())
    error = np.std(draws) / math.sqrt(len(draws))
    assert random_bdm(blocks, possible) == pytest.approx(np.mean(draws), abs=4 * error)
    assert random_bdm(0, possible) == 0


def test_against_another_checkpoint():
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model[2].weight[:] = model[2].weight.abs()
    report = C.measure(model, measures=FAST, baseline=before)
    comparison = report.baseline
    assert (comparison.kind, comparison.seeds) == ("checkpoint", 1)
    reference = C.measure(before, measures=FAST)
    found = comparison.ratio("bdm")
    assert (found.value, found.baseline) == (report.signs.bdm, reference.signs.bdm)
    assert found.ratio == found.value / found.baseline
    assert comparison.ratio("qubd[7]") is not None
    assert comparison.ratio("nothing") is None
    layer = next(each for each in comparison.tensors if each.name == "2.weight")
    assert next(each for each in layer.ratios if each.figure == "bdm_2d").ratio < 0.5
    with pytest.raises(InvalidArgumentError, match="no tensor of the same name and shape"):
        C.measure(model, measures=FAST, baseline={"other": torch.randn(8, 8)})


@pytest.mark.parametrize("kind", C.RANDOM_BASELINES)
def test_random_baselines_are_averaged_and_repeatable(kind):
    model = small_model()
    report = C.measure(model, measures=FAST, baseline=kind, seeds=4)
    assert report.baseline.seeds == 4
    for figure in ("bdm_2d", "qubd"):
        found = report.baseline.ratio(figure)
        assert found.spread > 0
        assert found.ratio == pytest.approx(1, abs=0.05)
    again = C.measure(model, measures=FAST, baseline=kind, seeds=4)
    assert again.baseline == report.baseline
    with pytest.raises(InvalidArgumentError, match="seeds must be at least 1"):
        C.measure(model, baseline=kind, seeds=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_what_random_baselines_keep(dtype):
    torch.manual_seed(3)
    weights = (torch.randn(200, 300) * 0.3 + 1).to(dtype)
    original = C.collect_weights({"w": weights})
    shuffled = C.random_baseline(original, "shuffled", 0).tensors[0].read()
    itemsize = weights.element_size()
    for data in (original.tensors[0].read(), shuffled):
        assert data.nbytes == weights.numel() * itemsize
    ours, theirs = (
        np.sort(data.view(f"<u{itemsize}")) for data in (original.tensors[0].read(), shuffled)
    )
    assert np.array_equal(ours, theirs)
    gaussian = C.random_baseline(original, "gaussian", 0).tensors[0].read()
    values = torch.from_numpy(gaussian.copy()).view(dtype).double()
    assert values.mean().item() == pytest.approx(weights.double().mean().item(), abs=0.01)
    assert values.std().item() == pytest.approx(weights.double().std().item(), rel=0.02)
    other = C.random_baseline(original, "gaussian", 1).tensors[0].read()
    assert not np.array_equal(gaussian, other)


# Tables


def test_rows_have_every_figure():
    report = C.measure(small_model(), measures=[*FAST, "zstd"], baseline="shuffled", seeds=2)
    row = model_row(report)
    assert row["bdm"] == report.signs.bdm
    assert row["bdm / shuffled"] == report.baseline.ratio("bdm").ratio
    assert row["zstd of weights"] == report.compression[0].ratio
    rows = tensor_rows(report)
    assert [each["tensor"] for each in rows] == [each.name for each in report.tensors]
    # Every row has the same columns, so that a table has no holes but empty cells.
    assert len({tuple(each) for each in rows if "bdm_2d" in each}) == 1
    text = to_csv(rows)
    assert text.splitlines()[0].startswith("model,tensor,type,shape,n,sparsity,l2,bdm,")
    assert len(text.splitlines()) == len(rows) + 1


# In training loops


def test_a_tracker_keeps_a_history(tmp_path):
    model = torch.nn.Linear(40, 40)
    log = tmp_path / "log.jsonl"
    tracker = momos_rs.ComplexityTracker(model, every=2, log=log)
    for epoch in range(5):
        entry = tracker.update(epoch, loss=1 / (epoch + 1))
        assert (entry is not None) == (epoch % 2 == 0)
        with torch.no_grad():
            model.weight.add_(0.1)
    assert [each.step for each in tracker.history] == [0, 2, 4]
    # Weights all above zero are as simple as can be.
    figures = [each.figures["bdm_2d"] for each in tracker.history]
    assert figures == sorted(figures, reverse=True)
    assert tracker.history[1].extra == {"loss": 1 / 3}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == [each.to_dict() for each in tracker.history]
    other = momos_rs.ComplexityTracker(model, every=2)
    other.load_state_dict(json.loads(json.dumps(tracker.state_dict())))
    assert other.history == tracker.history
    assert other.update() is None
    with pytest.raises(InvalidArgumentError, match="every must be"):
        momos_rs.ComplexityTracker(model, every=0)
    with pytest.raises(InvalidArgumentError, match="two measurements"):
        other.plot(tmp_path / "none.png")


def test_a_tracker_is_cheap():
    model = torch.nn.Linear(1000, 1000)
    tracker = momos_rs.ComplexityTracker(model)
    entries = [tracker.update() for _ in range(5)]
    assert min(entry.seconds for entry in entries) < 0.25
