"""Checkpoints: what was saved is what is loaded."""

from __future__ import annotations

import json
import resource
import shutil
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
from transformers import AutoTokenizer, BlipProcessor

import madtp_cli
from madtp_cli.checkpoint import load, remote_code
from madtp_cli.errors import CheckpointError, OutputError
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from tests.clip_words import clip_words
from tests.paths import GOLDEN

NLVR = GOLDEN / "blip_nlvr_a/checkpoint.pth"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A folder with the golden checkpoints' vocabulary."""
    folder = tmp_path / "words"
    folder.mkdir()
    shutil.copy(GOLDEN / "vocab.txt", folder)
    return folder


@pytest.fixture
def loaded(words: Path) -> tuple[MadtpBlipForNLVR2, BlipProcessor]:
    """A small random BLIP with values in every parameter."""
    return load.load(NLVR, tokenizer=words, head_width=16)


def _logits(model: MadtpBlipForNLVR2) -> Tensor:
    given = load_file(NLVR.parent / "inputs.safetensors")
    pairs = torch.stack(given["pixel_values"].float().chunk(2), 1).to(model.dtype)
    with torch.no_grad():
        logits: Tensor = model(pairs, given["input_ids"], given["attention_mask"]).logits
    return logits


def test_logits_are_the_same_bit_for_bit_after_save_and_load(
    loaded: tuple[MadtpBlipForNLVR2, BlipProcessor], tmp_path: Path
) -> None:
    """Also by the package's own `load`, from a path in words."""
    load.save(*loaded, tmp_path / "out")
    model, processor = madtp_cli.load(str(tmp_path / "out"))
    assert torch.equal(_logits(model), _logits(loaded[0]))
    assert not model.training
    assert processor.tokenizer.get_vocab() == loaded[1].tokenizer.get_vocab()
    assert processor.image_processor.to_dict() == loaded[1].image_processor.to_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_folder_keeps_its_precision(
    loaded: tuple[MadtpBlipForNLVR2, BlipProcessor], tmp_path: Path, dtype: torch.dtype
) -> None:
    """Rounding up would make the file twice as large on the next save."""
    load.save(loaded[0].to(dtype), loaded[1], tmp_path / "out")
    model, _ = load.load(tmp_path / "out")
    assert model.dtype == dtype
    assert all(torch.equal(value, loaded[0].state_dict()[key]) for key, value in model.state_dict().items())


def test_other_files_are_computed_in_full_precision(words: Path, tmp_path: Path) -> None:
    """examples/blip.pt is stored in half precision to be small, and half precision is slow on a CPU."""
    weights = torch.load(NLVR, weights_only=True)["model"]
    halved = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    torch.save({"model": halved}, tmp_path / "half.pt")
    assert load.inspect(tmp_path / "half.pt", head_width=16).precision == "float16"
    model, _ = load.load(tmp_path / "half.pt", tokenizer=words, head_width=16)
    assert model.dtype == torch.float32


def test_transformers_reads_the_folder(loaded: tuple[MadtpBlipForNLVR2, BlipProcessor], tmp_path: Path) -> None:
    """People who do not know this package's `load` use theirs."""
    load.save(*loaded, tmp_path / "out")
    model = MadtpBlipForNLVR2.from_pretrained(tmp_path / "out")
    assert torch.equal(_logits(model), _logits(loaded[0]))
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == 600


def test_the_folder_holds_what_it_should(loaded: tuple[MadtpBlipForNLVR2, BlipProcessor], tmp_path: Path) -> None:
    """With two keys of metadata the weights' file would not be the same twice."""
    load.save(*loaded, tmp_path / "out", files={"report.json": "{}", "README.md": "Grüße"})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "model.safetensors", "processor_config.json", "report.json", "README.md"),
        *("tokenizer.json", "tokenizer_config.json"),
        *remote_code.files("blip.nlvr2"),
    }
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "madtp_models_blip_nlvr2.MadtpBlipForNLVR2"
    assert (config["model_type"], config["task"]) == ("madtp_blip", "nlvr2")
    assert config["architectures"] == ["MadtpBlipForNLVR2"]
    assert (tmp_path / "out/README.md").read_text(encoding="utf-8") == "Grüße"
    with safe_open(tmp_path / "out/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_saving_twice_gives_the_same_bytes(loaded: tuple[MadtpBlipForNLVR2, BlipProcessor], tmp_path: Path) -> None:
    """A checksum then says whether two results are the same."""
    for name in ("one", "two"):
        load.save(*loaded, tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@contextmanager
def _files_up_to(size: int) -> Iterator[None]:
    """A disk that takes no larger files, as a full one does."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_nothing_behind(loaded: tuple[MadtpBlipForNLVR2, BlipProcessor], tmp_path: Path) -> None:
    """Half a folder would be taken for a result."""
    before = sorted(path.name for path in tmp_path.iterdir())
    with _files_up_to(100_000), pytest.raises(OutputError, match="cannot be written"):
        load.save(*loaded, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_existing_output_is_refused_before_anything_is_written(
    loaded: tuple[MadtpBlipForNLVR2, BlipProcessor], tmp_path: Path
) -> None:
    """Unless told to overwrite it."""
    load.save(*loaded, tmp_path / "out", files={"report.json": "old"})
    with pytest.raises(OutputError, match="--overwrite"):
        load.save(*loaded, tmp_path / "out")
    load.save(*loaded, tmp_path / "out", files={"report.json": "new"}, overwrite=True)
    assert (tmp_path / "out/report.json").read_text() == "new"


def test_saving_is_silent(
    loaded: tuple[MadtpBlipForNLVR2, BlipProcessor], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The progress bars of transformers would mix with the command line's own lines."""
    load.save(*loaded, tmp_path / "out")
    load.load(tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_another_image_size_changes_model_and_processor(words: Path) -> None:
    """A processor of the old size would feed the model more patches than it has positions."""
    model, processor = load.load(NLVR, tokenizer=words, head_width=16, image_size=64)
    assert model.config.vision_config.image_size == 64
    assert model.vision_model.embeddings.position_embedding.shape == (1, 17, 48)
    assert dict(processor.image_processor.size)["height"] == 64


def test_the_config_has_the_tokenizers_special_ids(loaded: tuple[MadtpBlipForNLVR2, BlipProcessor]) -> None:
    """They are not in the file, and transformers' defaults are other words."""
    text = loaded[0].config.text_config
    assert (text.bos_token_id, text.sep_token_id, text.eos_token_id, text.pad_token_id) == (598, 102, 102, 0)


def test_a_loaded_model_does_not_share_the_files_memory(words: Path, tmp_path: Path) -> None:
    """Tensors read from a file can be views of it, which training would write through."""
    shutil.copy(NLVR, tmp_path / "a.pth")
    model, _ = load.load(tmp_path / "a.pth", tokenizer=words, head_width=16)
    before = (tmp_path / "a.pth").read_bytes()
    with torch.no_grad():
        model.get_parameter("cls_head.0.weight").zero_()
    again, _ = load.load(tmp_path / "a.pth", tokenizer=words, head_width=16)
    assert again.get_parameter("cls_head.0.weight").abs().sum() > 0
    assert (tmp_path / "a.pth").read_bytes() == before


def test_a_missing_tensor_is_named(words: Path, tmp_path: Path) -> None:
    """The original's loader leaves it random and says nothing."""
    weights = torch.load(NLVR, weights_only=True)["model"]
    del weights["cls_head.2.bias"]
    torch.save({"model": weights}, tmp_path / "a.pth")
    assert load.inspect(tmp_path / "a.pth", head_width=16).missing == ["cls_head.2.bias"]
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors(?s:.)*cls_head\.2\.bias"):
        load.load(tmp_path / "a.pth", tokenizer=words, head_width=16)


def test_a_tensor_of_another_shape_is_named(words: Path, tmp_path: Path) -> None:
    """With both shapes; the original's loader drops it and says nothing."""
    weights = torch.load(NLVR, weights_only=True)["model"]
    weights["cls_head.2.weight"] = torch.zeros(3, 32)
    torch.save({"model": weights}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"cls_head\.2\.weight has shape \[3, 32\](?s:.)*\[2, 32\]"):
        load.load(tmp_path / "a.pth", tokenizer=words, head_width=16)


def test_a_tensor_too_many_is_told_but_no_obstacle(
    words: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Other people's training leaves all sorts of things in a file."""
    weights = torch.load(NLVR, weights_only=True)["model"]
    torch.save({"model": {**weights, "extra.weight": torch.zeros(1)}}, tmp_path / "a.pth")
    assert load.inspect(tmp_path / "a.pth", head_width=16).unexpected == ["extra.weight"]
    load.load(tmp_path / "a.pth", tokenizer=words, head_width=16)
    assert "1 tensors have no place" in caplog.text


def test_settings_that_make_no_model_are_an_error(
    loaded: tuple[MadtpBlipForNLVR2, BlipProcessor], tmp_path: Path
) -> None:
    """As after an edit by hand."""
    load.save(*loaded, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    config["vision_config"]["num_attention_heads"] = 7
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no model can be made of its settings"):
        load.load(tmp_path / "out")


def test_a_pruned_clip_answers_the_same_after_save_and_load(tmp_path: Path) -> None:
    """From OpenAI's archive, with its own tokenizer and image preparation, which are not BLIP's."""
    words = clip_words(tmp_path / "words", 400)
    model, ready = load.load(GOLDEN / "clip_a/archive.pt", tokenizer=words)
    model.attach(PruningSettings(threshold_scale=0.5, dictionary_size=5, dictionary_width=12))
    load.save(model, ready, tmp_path / "out")
    again, own = madtp_cli.load(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json"),
        *remote_code.files("clip.retrieval"),
    }
    assert (own.tokenizer.model_max_length, dict(own.image_processor.crop_size)["height"]) == (77, 64)
    picture = Image.new("RGB", (90, 70), (200, 30, 60))
    given = own(text=["a dog", "dog dog dog"], images=[picture, picture.rotate(90)], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(again(**given).logits, model(**given).logits)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("madtp_clip", ["MadtpClipForRetrieval"])
    assert config["text_config"]["eos_token_id"] == 399
