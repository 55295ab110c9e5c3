"""``momos complexity``: many models, files it writes, the page in a real browser."""

import csv
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from momos_rs.cli.complexity import render
from momos_rs.cli.main import group
from momos_rs.complexity import MEASURES
from momos_rs.complexity.collection import (
    Times,
    expand_models,
    natural_order,
    short_names,
    times_of,
)
from momos_rs.errors import InvalidArgumentError, MomosError
from momos_rs.plots.page import render_page

FAST = ["--measure", "bdm", "--measure", "bdm_2d", "--measure", "qubd", "--measure", "sparsity"]


@pytest.fixture
def run(tmp_path):
    """A folder of the checkpoints of a run."""
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    weights = torch.randn(60, 80)
    for epoch in (0, 2, 10):
        state = {"layer.weight": weights.clone(), "layer.bias": torch.randn(60)}
        state["layer.weight"][:, : 4 * epoch] = 0.5
        torch.save(state, folder / f"epoch-{epoch}.pt")
    return folder


def momos(*arguments):
    from click.testing import CliRunner

    return CliRunner().invoke(group, ["complexity", *map(str, arguments)], catch_exceptions=False)


def test_one_model_on_screen(run):
    result = momos(run / "epoch-0.pt", "--baseline", "gaussian", "--seeds", 2)
    assert result.exit_code == 0
    for text in (
        "weights (n)",
        "4,860",
        "BDM of signs, 1-D",
        "QuBD, 8 bits",
        "gzip ratio of",
        "lzma ratio of signs",
        "mosaic bound, s=4, c=0.05",
        "against gaussian",
    ):
        assert text in result.output


def test_json_of_one_and_of_many(run):
    one = json.loads(momos(run / "epoch-0.pt", *FAST, "--json").output)
    assert one["n"] == 4860
    assert one["compression"] == []
    many = json.loads(momos(run, *FAST, "--json").output)
    assert [each["source"] for each in many] == ["epoch-0.pt", "epoch-2.pt", "epoch-10.pt"]
    assert many[0]["signs"] == one["signs"]


def test_a_run_against_its_start_with_every_file(run, tmp_path):
    table, picture, page = (tmp_path / name for name in ("t.csv", "p.svg", "p.html"))
    options = [
        run,
        "--over-time",
        "--baseline",
        run / "epoch-0.pt",
        *FAST,
        "--csv",
        table,
        "--plot",
        picture,
        "--html",
        page,
    ]
    result = momos(*options)
    assert result.exit_code == 0
    assert "qubd/base" in result.output
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["epoch-0.pt", "epoch-2.pt", "epoch-10.pt"]
    ratios = [float(row[f"bdm_2d / {run / 'epoch-0.pt'}"]) for row in rows]
    assert ratios[0] == 1
    assert ratios == sorted(ratios, reverse=True)
    drawing = picture.read_text()
    for label in ("Complexity over training", "epoch", "Bit-planes (QuBD)", "ratio to epoch-0.pt"):
        assert f"<!-- {label} -->" in drawing
    before = {path: path.read_bytes() for path in (table, picture, page)}
    with pytest.raises(FileExistsError, match="--force"):
        momos(*options)
    momos(*options, "--force", "--quiet")
    # The same models give the same files.
    assert {path: path.read_bytes() for path in before} == before


def test_tensors_in_the_table(run, tmp_path):
    table = tmp_path / "tensors.csv"
    result = momos(run / "epoch-2.pt", *FAST, "--per-tensor", "--csv", table)
    assert "layer.weight" in result.output
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["tensor"] for row in rows] == ["layer.weight", "layer.bias"]
    assert rows[1]["qubd"] == ""


def test_measures_can_be_left_out(run):
    options = [each for name in ("gzip", "bz2", "lzma", "zstd") for each in ("--skip", name)]
    assert "ratio of" not in momos(run / "epoch-0.pt", *options).output


def test_archives_and_checkpoints_alike(run, tmp_path):
    from momos_rs import pack_file

    archive = tmp_path / "packed.momos"
    pack_file(run / "epoch-0.pt", archive, motifs=4096, method="random")
    packed = json.loads(momos(archive, *FAST, "--json").output)
    original = json.loads(momos(run / "epoch-0.pt", *FAST, "--json").output)
    assert packed["format"] == "momos"
    assert packed["signs"] == original["signs"]


def test_models_in_folders(run, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    found = expand_models([tmp_path])
    assert [path.name for path in found] == ["epoch-0.pt", "epoch-2.pt", "epoch-10.pt"]
    assert short_names(found) == ["epoch-0.pt", "epoch-2.pt", "epoch-10.pt"]
    assert short_names([Path("a/x.pt"), Path("b/x.pt")]) == ["a/x.pt", "b/x.pt"]
    assert natural_order("a10b") > natural_order("a9b")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        expand_models([tmp_path / "none"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidArgumentError, match="holds no model"):
        expand_models([empty])
    # A folder with an index is one model, however many shards it has.
    (run / "model.safetensors.index.json").write_text("{}")
    assert expand_models([run]) == [run]


def test_a_run_is_in_the_order_of_its_training(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    events = [
        {"event": "start"},
        *({"event": "epoch", "epoch": epoch} for epoch in (1, 2, 3)),
        {"event": "end", "best": {"epoch": 2}},
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    for name in ("best.pt", "final.momos", "final.pt", "init.pt", "last.pt"):
        (run / name).write_bytes(b"")
    paths = expand_models([run])
    assert [path.name for path in paths] == ["init.pt", "best.pt", "final.pt"]
    assert times_of(paths) == Times((0, 2, 3), "epoch")


def test_checkpoints_of_other_trainers(tmp_path):
    for step in (500, 1000):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "training_args.bin"):
            (folder / name).write_bytes(b"")
    paths = expand_models([tmp_path])
    assert [path.name for path in paths] == ["model.safetensors"] * 2
    assert times_of(paths) == Times((500, 1000), "number of the checkpoint")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["init.pt", "epoch-2.pt", "epoch-10.pt"], Times((0, 2, 10), "epoch")),
        (["epoch=1-step=40.ckpt", "epoch=2-step=80.ckpt"], Times((40, 80), "step")),
        (["epoch-2.pt", "epoch-1.pt"], None),
        (["early.pt", "late.pt"], None),
    ],
)
def test_when_checkpoints_were_made(names, expected):
    assert times_of([Path("run", name) for name in names]) == expected


def test_a_baseline_of_another_shape_is_said_to_be_one(run, tmp_path):
    state = torch.load(run / "epoch-0.pt")
    torch.save(state | {"layer.bias": torch.randn(90)}, tmp_path / "other.pt")
    report = json.loads(
        momos(run / "epoch-0.pt", "--baseline", tmp_path / "other.pt", *FAST, "--json").output
    )
    assert [each["name"] for each in report["baseline"]["tensors"]] == ["layer.weight"]
    assert report["baseline"]["n"] == 4890
    assert any("1 of 2 tensors" in note and "4,890" in note for note in report["notes"])


def test_too_few_weights_for_a_block(tmp_path):
    torch.save({"bias": torch.randn(5)}, tmp_path / "bias.pt")
    assert "too few weights for a block" in momos(tmp_path / "bias.pt", *FAST).output
    report = json.loads(momos(tmp_path / "bias.pt", *FAST, "--json").output)
    assert str(report["signs"]["bdm"]) == "0.0"


def test_tables_fit_the_terminal():
    from momos_rs.complexity import measure

    torch.manual_seed(0)
    reports = [
        measure({"w": torch.randn(40, 40)}, name=f"model {index}", baseline="gaussian", seeds=1)
        for index in range(3)
    ]
    whole = render(reports)
    assert "no room" not in whole
    for width in (60, 80, 100):
        lines = render(reports, width=width).splitlines()
        assert max(map(len, lines)) <= width
        # Ratios tell most, and go last.
        assert "bdm/base" in lines[0]
        assert any(line.strip().startswith("no room for") for line in lines)
    shown = render(reports[:1], per_tensor=True, width=80)
    assert max(map(len, shown.splitlines())) <= 80


def test_mistakes_end_in_one_line(run, tmp_path):
    for arguments, message in (
        ([run / "epoch-0.pt", "--over-time"], "several checkpoints"),
        ([run / "epoch-0.pt", "--measure", "norm", "--skip", "norm"], "nothing is left"),
        ([run / "epoch-0.pt", "--baseline", "gausian"], "gaussian or shuffled"),
        ([run / "epoch-0.pt", "--csv", tmp_path / "x.svg", "--plot", tmp_path / "x.svg"], "each"),
        ([run / "none.pt"], "does not exist"),
        ([run / "epoch-0.pt", "--plot", tmp_path / "x.gif"], "pictures end in"),
        ([run / "epoch-0.pt", "--measure", "norm", "--plot", tmp_path / "x.png"], "--plot draws"),
        ([run / "epoch-0.pt", "--baseline", run / "none.pt"], "none.pt"),
    ):
        command = [sys.executable, "-m", "momos_rs", "complexity", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert result.stderr.startswith("momos: error: ")
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("x.*"))


def test_pictures_need_matplotlib(run, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MomosError, match=r"pip install 'momos_rs\[plot\]'"):
        momos(run / "epoch-0.pt", *FAST, "--plot", tmp_path / "p.png")
    # The page has its tables all the same.
    momos(run / "epoch-0.pt", *FAST, "--html", tmp_path / "p.html")
    assert "No pictures: pictures need matplotlib" in (tmp_path / "p.html").read_text()


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_pictures_of_every_kind(run, tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    momos(run, *FAST, "--plot", path)
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)


def page_of(run, tmp_path, *options):
    path = tmp_path / "page.html"
    momos(run, *FAST, "--html", path, *options)
    return path


def test_the_page_fetches_nothing(run, tmp_path):
    text = page_of(run, tmp_path).read_text()
    for reference in re.findall(r'(?:src|href)="([^"]*)"', text):
        assert reference.startswith("data:")
    assert "@import" not in text
    assert "url(" not in text


def test_names_cannot_break_the_page(tmp_path):
    from momos_rs.complexity import measure

    report = measure(
        {'<img src=x onerror="alert(1)">': torch.randn(8, 8)}, name="<script>", measures=["bdm"]
    )
    text = render_page([report])
    assert "<img src=x" not in text
    assert text.count("<script>") == 1


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(run, tmp_path, width):
    """No console error, nothing wider than the screen, a click on a heading sorts."""
    path = page_of(run, tmp_path, "--baseline", "shuffled", "--seeds", "1")
    probe = """
    <script>
    const table = document.querySelector("table.sortable");
    const heads = [...table.tHead.rows[0].cells];
    const column = heads.findIndex(head => head.textContent === "bdm_2d");
    heads[column].querySelector("button").click();
    const first = heads[column].ariaSort;
    heads[column].querySelector("button").click();
    const values = [...table.tBodies[0].rows].map(row => +row.cells[column].dataset.value);
    const loaded = [...document.images].every(image => image.naturalWidth > 0);
    parent.document.body.dataset.result = JSON.stringify({
      first, second: heads[column].ariaSort, values, loaded,
      overflow: document.documentElement.scrollWidth - innerWidth, pictures: document.images.length,
      width: innerWidth,
    });
    </script></body>"""
    probed = tmp_path / "probed.html"
    # A window cannot be as narrow as a phone, a frame can.
    framed = html.escape(path.read_text().replace("</body>", probe), quote=True)
    probed.write_text(
        '<!DOCTYPE html><link rel="icon" href="data:,"><body>'
        f'<iframe srcdoc="{framed}" style="width: {width}px; height: 800px; border: 0"></iframe>'
    )
    result = subprocess.run(
        [
            str(CHROMIUM),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1400,900",
            "--virtual-time-budget=2000",
            "--dump-dom",
            probed.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in result.stderr
    found = re.search(r'<body data-result="([^"]*)"', result.stdout)
    assert found is not None
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert (seen["first"], seen["second"]) == ("ascending", "descending")
    assert seen["values"] == sorted(seen["values"], reverse=True)
    assert len(set(seen["values"])) == 3
    assert seen["loaded"]
    assert seen["pictures"] == 2
    assert seen["overflow"] <= 0
    assert seen["width"] == width


GUIDE = (Path(__file__).parents[2] / "docs" / "complexity.md").read_text()


def test_the_guide_runs(tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    torch.save({"a.weight": torch.randn(16, 16)}, "model.pt")
    names = {
        "model": torch.nn.Linear(16, 16),
        "train": lambda _model: None,
        "epochs": 2,
        "loss": 0.5,
        "array": np.random.default_rng(0).integers(0, 2, (8, 8)),
    }
    examples = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, "complexity.md", "exec"), names)
    assert Path("complexity.pdf").read_bytes().startswith(b"%PDF")
    assert len(Path("complexity.jsonl").read_text().splitlines()) == 2


def test_the_guide_names_what_there_is():
    from momos_rs.cli.complexity import complexity

    options = {option for parameter in complexity.params for option in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", GUIDE)) - {"--no-deps"}
    assert named <= options
    for measure in MEASURES:
        assert f"`{measure}`" in GUIDE
