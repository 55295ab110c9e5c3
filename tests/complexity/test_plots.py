"""Pictures: what they name, and that nothing in them is cut or covered."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from momos_rs.complexity import ComplexityReport, measure
from momos_rs.errors import InvalidArgumentError
from momos_rs.plots.labels import LABEL_LENGTH, model_labels, shortened, tensor_labels

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg

from momos_rs.experiments.config import RunConfig
from momos_rs.experiments.plots import FIGURES, Run
from momos_rs.plots import draw_pictures, pictures_for
from momos_rs.plots.style import MOST_STYLES, style_of


def reports(count: int, layers: int = 2) -> list[ComplexityReport]:
    torch.manual_seed(0)
    return [
        measure(
            {f"encoder.layer.{n}.attention.weight": torch.randn(8, 16) for n in range(layers)},
            measures=["bdm", "bdm_2d", "qubd"],
            baseline="gaussian",
            seeds=2,
            name=f"runs/model-{index}/final.pt",
        )
        for index in range(count)
    ]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["1.weight", "3.weight"], ["1.weight", "3.weight"]),
        (["conv.weight", "fc.weight"], ["conv", "fc"]),
        (["net.a.weight", "net.b.weight"], ["a", "b"]),
        (["a", "a.weight"], ["a", "a.weight"]),
        (["only.weight"], ["only"]),
        ([], []),
    ],
)
def test_layers_keep_what_tells_them_apart(names: list[str], labels: list[str]) -> None:
    assert tensor_labels(names) == labels


@pytest.mark.parametrize(
    ("sources", "labels"),
    [
        (["x/a/final.pt", "x/b/final.pt"], ["a/final", "b/final"]),
        (["a.pt", "a.momos"], ["a.pt", "a.momos"]),
        (["v1.5", "v1.6"], ["v1.5", "v1.6"]),
        (["models/onet.pt"], ["onet"]),
        (["run/final.pt"], ["run/final"]),
    ],
)
def test_models_keep_what_tells_them_apart(sources: list[str], labels: list[str]) -> None:
    assert model_labels(sources) == labels


def test_long_names_keep_their_numbers_and_their_end() -> None:
    assert shortened("encoder.layer.10.attention.self.query") == "e.l.10.a.self.query"
    assert len(shortened("x" * 100)) == LABEL_LENGTH
    assert shortened("short.name") == "short.name"


def test_styles_differ() -> None:
    styles = [repr(sorted(style_of(position).items())) for position in range(MOST_STYLES)]
    assert len(set(styles)) == MOST_STYLES


@pytest.mark.parametrize(
    ("count", "layers", "over_time"),
    [(1, 2, False), (1, 100, False), (5, 2, False), (60, 1, False), (5, 2, True)],
)
def test_nothing_is_cut_or_covered(count: int, layers: int, over_time: bool) -> None:
    drawn = reports(count, layers)
    assert len(pictures_for(drawn, over_time=over_time)) == 2
    figure = draw_pictures(drawn, over_time=over_time)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for part in figure.subfigs:
        (key,) = part.legends
        axes = part.axes[0]
        assert axes.get_xlabel()
        assert not key.get_window_extent(renderer).overlaps(axes.get_window_extent(renderer))
        low, high = sorted(axes.get_ylim())
        ticks = [
            tick.label1 for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high
        ]
        for text in [axes.xaxis.label, axes.yaxis.label, *key.get_texts(), *ticks]:
            if text.get_text():
                extent = text.get_window_extent(renderer)
                assert figure.bbox.padded(1).containsx(extent.x0), text
                assert figure.bbox.padded(1).containsx(extent.x1), text
                assert figure.bbox.padded(1).containsy(extent.y0), text
                assert figure.bbox.padded(1).containsy(extent.y1), text
        extents = [tick.get_window_extent(renderer) for tick in ticks if tick.get_text()]
        extents.sort(key=lambda each: each.y0)
        assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(extents))


def test_too_many_models_to_tell_apart_are_counted() -> None:
    figure = draw_pictures(reports(MOST_STYLES + 1), pictures=["planes"])
    (key,) = figure.subfigs[0].legends
    texts = [text.get_text() for text in key.get_texts()]
    assert f"{MOST_STYLES + 1 - 6} models between" in texts
    assert len(texts) == 7


def run_of(config: RunConfig, epochs: int = 3) -> Run:
    entries = [{"event": "epoch", "epoch": n + 1, "distortion": 0.1} for n in range(epochs)]
    end = {"event": "end", "test_accuracy": 0.5, "k": 10, "m": 100, "motif_counts": [5, 3, 0]}
    start = {"event": "start", "config": config.to_dict(), "parameters": 100}
    return Run(path=Path("none"), config=config, start=start, epochs=entries, end=end)


def test_settings_that_differ_are_named() -> None:
    base = RunConfig(capacity=0.1)
    runs = [run_of(replace(base, data=data, epochs=e)) for data, e in (("a", 5), ("b", 9))]
    figure = FIGURES["distortion"](runs, None)
    (key,) = figure.subfigs[0].legends
    assert [text.get_text() for text in key.get_texts()] == [
        "s=4, c=0.1, a, epochs 5",
        "s=4, c=0.1, b, epochs 9",
    ]


def test_settings_without_a_line_are_counted() -> None:
    runs = [run_of(RunConfig(s=s)) for s in range(1, MOST_STYLES + 4)]
    (key,) = FIGURES["distortion"](runs, None).subfigs[0].legends
    assert len(key.get_texts()) == MOST_STYLES
    assert "without 3 more" in key.get_title().get_text()


def test_one_point_is_no_figure(tmp_path: Path) -> None:
    from momos_rs.experiments.plots import draw

    with pytest.raises(InvalidArgumentError, match="one capacity is not much of a figure"):
        draw([run_of(RunConfig())], tmp_path / "pictures", figures=["accuracy"])
    assert not (tmp_path / "pictures").exists()
