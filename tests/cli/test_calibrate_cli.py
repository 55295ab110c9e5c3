"""``momos calibrate``, and packing with what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from momos_rs.calibration import Calibration, calibrate
from momos_rs.cli.main import group
from momos_rs.errors import InvalidArgumentError
from momos_rs.packing import save

TEXT = "\n\n".join(
    f"Paragraph number {number} tells of mosaics, motifs and {number % 7} kinds of stones."
    for number in range(40)
)


def test_text_is_needed_and_a_folder_of_transformers(tmp_path: Path) -> None:
    run = CliRunner().invoke(group, ["calibrate", str(tmp_path), "-o", str(tmp_path / "c")])
    assert run.exit_code == 2
    assert "--text" in run.output
    (tmp_path / "text.txt").write_text(TEXT)
    command = ["calibrate", str(tmp_path), "--text", str(tmp_path / "text.txt")]
    run = CliRunner().invoke(group, [*command, "-o", str(tmp_path / "c")])
    assert isinstance(run.exception, InvalidArgumentError)
    assert "no config.json" in str(run.exception)
    (tmp_path / "text.txt").write_text("short\n\n")
    run = CliRunner().invoke(group, [*command, "-o", str(tmp_path / "c")])
    assert "no paragraph" in str(run.exception)
    assert not (tmp_path / "c").exists()


def test_packing_with_a_calibration(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Linear(30, 20))
    save(model, tmp_path / "model.safetensors")
    found = calibrate(model, [torch.randn(64, 40) * torch.logspace(0, -2, 40)])
    found.save(tmp_path / "it.calibration")
    command = ["pack", str(tmp_path / "model.safetensors"), "--method", "trellis", "--json"]
    run = CliRunner().invoke(group, [*command, "--calibration", str(tmp_path / "it.calibration")])
    assert run.exit_code == 0, run.output
    report = json.loads(run.output)
    assert "calibrated on 64 samples" in report["notes"]
    (tmp_path / "it.calibration").write_bytes(b"no calibration at all")
    run = CliRunner().invoke(
        group, [*command, "--force", "--calibration", str(tmp_path / "it.calibration")]
    )
    assert "it.calibration is damaged or no calibration" in str(run.exception)


def test_a_language_model_is_calibrated_with_text(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers")
    folder = tmp_path / "model"
    words = sorted(set(TEXT.replace(".", " .").replace(",", " ,").split()))
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    (tmp_path / "text.txt").write_text(TEXT)
    output = tmp_path / "it.calibration"
    command = ["calibrate", str(folder), "--text", str(tmp_path / "text.txt"), "-o", str(output)]
    run = CliRunner().invoke(group, [*command, "--samples", "24", "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.output)["samples"] == 24
    assert isinstance(CliRunner().invoke(group, command).exception, FileExistsError)
    found = Calibration.load(output)
    assert found.model == "BertForMaskedLM"
    assert found.layers["bert.embeddings.word_embeddings.weight"].rows
    packed = ["pack", str(folder), "--method", "grid", "-o", str(tmp_path / "it.momos")]
    run = CliRunner().invoke(group, [*packed, "--calibration", str(output)])
    assert run.exit_code == 0, run.output
