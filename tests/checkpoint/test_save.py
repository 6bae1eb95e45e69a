"""Saving: a saved model and a loaded one compute the same."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

import madtp_cli
from madtp_cli.checkpoint import remote_code
from madtp_cli.checkpoint.loading import LoadedCheckpoint, load
from madtp_cli.checkpoint.save import save
from madtp_cli.errors import OutputError
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.models.prunable import Prunable
from tests.clip_words import clip_words
from tests.paths import GOLDEN


def _save(
    loaded: LoadedCheckpoint, folder: Path, files: dict[str, str] | None = None, *, overwrite: bool = False
) -> None:
    save(loaded.model, loaded.processor, folder, files=lambda folder: files or {}, overwrite=overwrite)


def _logits(model: Prunable) -> Tensor:
    """Return the logits of the model for the golden inputs."""
    inputs = load_file(GOLDEN / "blip_nlvr_a/inputs.safetensors")
    pairs = torch.stack(inputs["pixel_values"].float().chunk(2), 1).to(model.dtype)
    with torch.no_grad():
        logits: Tensor = model(pairs, inputs["input_ids"], inputs["attention_mask"]).logits
    return logits


def test_logits_are_bit_identical_after_saving_and_loading(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    """The folder is read with the package's own `load`, and its path is a string."""
    _save(loaded, tmp_path / "out")
    model, processor = madtp_cli.load(str(tmp_path / "out"))
    assert torch.equal(_logits(model), _logits(loaded.model))
    assert not model.training
    assert processor.tokenizer.get_vocab() == loaded.processor.tokenizer.get_vocab()
    assert processor.image_processor.to_dict() == loaded.processor.image_processor.to_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_folder_keeps_its_precision(loaded: LoadedCheckpoint, tmp_path: Path, dtype: torch.dtype) -> None:
    """Loading in float32 would double the size of the file at the next save."""
    save(loaded.model.to(dtype), loaded.processor, tmp_path / "out")
    model = load(tmp_path / "out").model
    assert model.dtype == dtype
    assert all(torch.equal(value, loaded.model.state_dict()[key]) for key, value in model.state_dict().items())


def test_transformers_reads_the_folder(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    """Users may load it with `from_pretrained`."""
    _save(loaded, tmp_path / "out")
    model = MadtpBlipForNLVR2.from_pretrained(tmp_path / "out")
    assert torch.equal(_logits(model), _logits(loaded.model))
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == 600


def test_the_content_of_the_folder(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    """With two metadata keys, the safetensors file would not be reproducible."""
    _save(loaded, tmp_path / "out", {"report.json": "{}", "README.md": "Grüße"})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "model.safetensors", "processor_config.json", "report.json", "README.md"),
        *("tokenizer.json", "tokenizer_config.json"),
        *remote_code.files("blip.nlvr2"),
        "madtp_models_blip_processing.py",
    }
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "madtp_models_blip_nlvr2.MadtpBlipForNLVR2"
    assert (config["model_type"], config["task"]) == ("madtp_blip", "nlvr2")
    assert config["architectures"] == ["MadtpBlipForNLVR2"]
    assert (tmp_path / "out/README.md").read_text(encoding="utf-8") == "Grüße"
    with safe_open(tmp_path / "out/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_saving_twice_gives_the_same_bytes(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    """So a checksum shows whether two results are equal."""
    for name in ("first", "second"):
        _save(loaded, tmp_path / name)
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes()


@contextmanager
def _maximum_file_size(size: int) -> Iterator[None]:
    """Let every write beyond this size fail, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_nothing_behind(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    """Half a folder would look like a result."""
    before = sorted(path.name for path in tmp_path.iterdir())
    with _maximum_file_size(100_000), pytest.raises(OutputError, match="cannot be written"):
        _save(loaded, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_existing_folder_is_replaced_only_with_overwrite(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    """It may be the result of a long run."""
    _save(loaded, tmp_path / "out", {"report.json": "old"})
    with pytest.raises(OutputError, match="--overwrite"):
        _save(loaded, tmp_path / "out")
    _save(loaded, tmp_path / "out", {"report.json": "new"}, overwrite=True)
    assert (tmp_path / "out/report.json").read_text() == "new"


def test_saving_and_loading_print_nothing(
    loaded: LoadedCheckpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The progress bars of transformers would mix with the output of the command line."""
    _save(loaded, tmp_path / "out")
    load(tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_a_pruned_clip_computes_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    """It comes from OpenAI's archive and has its own tokenizer and image preparation, which differ from BLIP's."""
    original = load(GOLDEN / "clip_a/archive.pt", tokenizer=clip_words(tmp_path / "words", 400))
    original.model.attach(PruningSettings(threshold_scale=0.5, dictionary_size=5, dictionary_width=12))
    _save(original, tmp_path / "out")
    model, processor = madtp_cli.load(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json"),
        *remote_code.files("clip.retrieval"),
    }
    assert (processor.tokenizer.model_max_length, dict(processor.image_processor.crop_size)["height"]) == (77, 64)
    image = Image.new("RGB", (90, 70), (200, 30, 60))
    inputs = processor(
        text=["a dog", "dog dog dog"], images=[image, image.rotate(90)], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, original.model(**inputs).logits)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("madtp_clip", ["MadtpClipForRetrieval"])
    assert config["text_config"]["eos_token_id"] == 399
