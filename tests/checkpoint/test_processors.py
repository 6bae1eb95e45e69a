"""Processors: images and texts are prepared as in the training of the published models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, CLIPTokenizer

from madtp_cli.checkpoint import processors
from madtp_cli.errors import CheckpointError
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.clip.towers import MadtpClipConfig
from madtp_cli.models.family import ImageSettings
from tests.clip_words import clip_words
from tests.paths import GOLDEN

#: Word pieces in golden/vocab.txt, and with [DEC] and [ENC].
PLAIN, BLIP = 598, 600
#: Image settings of the published models.
USUAL = ImageSettings()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint file in a folder of its own. Its content does not matter here."""
    path = tmp_path / "folder" / "blip.pth"
    path.parent.mkdir()
    path.touch()
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, so that tests do not depend on this machine's cache."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def _blip_config(pieces: int, image_size: int = 384) -> MadtpBlipConfig:
    """The configuration of a BLIP with this number of word pieces."""
    return MadtpBlipConfig(text_config={"vocab_size": pieces}, vision_config={"image_size": image_size})


def _put_vocabulary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(GOLDEN / "vocab.txt", folder / "vocab.txt")
    return folder


def test_a_plain_vocabulary_gets_blips_two_tokens(checkpoint: Path, tmp_path: Path) -> None:
    """bert-base-uncased does not have [DEC] and [ENC]. BLIP adds them in this order."""
    words = processors.find_tokenizer(checkpoint, _put_vocabulary(tmp_path / "words"), _blip_config(BLIP))
    assert words.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [PLAIN, PLAIN + 1]
    assert words.bos_token == "[DEC]"
    golden = json.loads((GOLDEN / "blip_nlvr_a/info.json").read_text())
    assert words("There are three birds.")["input_ids"][0] == 101
    assert golden["enc_token_id"] == words.convert_tokens_to_ids("[ENC]")


def test_token_numbers_equal_the_original_code(checkpoint: Path, tmp_path: Path) -> None:
    """The token numbers of the golden texts, padding included."""
    from safetensors.torch import load_file

    words = processors.find_tokenizer(checkpoint, _put_vocabulary(tmp_path / "words"), _blip_config(BLIP))
    texts = json.loads((GOLDEN / "blip_nlvr_a/info.json").read_text())["texts"]
    expected = load_file(GOLDEN / "blip_nlvr_a/inputs.safetensors")
    encoded = words(texts, padding=True, return_tensors="pt")
    assert torch.equal(encoded["input_ids"], expected["input_ids_raw"])
    assert torch.equal(encoded["attention_mask"], expected["attention_mask"])


@pytest.mark.parametrize("place", ["blip-tokenizer", "tokenizer", "."])
def test_a_tokenizer_next_to_the_checkpoint_is_found(checkpoint: Path, place: str) -> None:
    """The example checkpoints have their tokenizers there."""
    _put_vocabulary(checkpoint.parent / place)
    assert len(processors.find_tokenizer(checkpoint, None, _blip_config(BLIP))) == BLIP


def test_the_nearest_tokenizer_that_fits_is_used(checkpoint: Path) -> None:
    """A tokenizer of another checkpoint in the same folder is skipped."""
    (checkpoint.parent / "blip-tokenizer").mkdir()
    (checkpoint.parent / "blip-tokenizer/vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nother\n")
    _put_vocabulary(checkpoint.parent / "tokenizer")
    assert len(processors.find_tokenizer(checkpoint, None, _blip_config(BLIP))) == BLIP


def test_a_tokenizer_of_another_size_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Its token numbers would refer to other words. The message states both sizes."""
    words = _put_vocabulary(tmp_path / "words")
    with pytest.raises(CheckpointError, match="598 word pieces, but the checkpoint has 700"):
        processors.find_tokenizer(checkpoint, words, _blip_config(700))


def test_a_tokenizer_with_other_last_tokens_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """The size alone does not show that [ENC] has the checkpoint's token number."""
    words = BertTokenizer(vocab=str(GOLDEN / "vocab.txt"))
    words.add_tokens(["[ENC]", "[DEC]"], special_tokens=True)
    words.save_pretrained(tmp_path / "words")
    with pytest.raises(CheckpointError, match=r"does not end with \[DEC\] and \[ENC\]"):
        processors.find_tokenizer(checkpoint, tmp_path / "words", _blip_config(BLIP))


@pytest.mark.parametrize("content", ["", "{}", "garbage"])
def test_a_damaged_tokenizer_is_named(checkpoint: Path, tmp_path: Path, content: str) -> None:
    """The errors of transformers do not state the folder."""
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer in .* is unreadable|tokenizer\.json is not valid JSON"):
        processors.find_tokenizer(checkpoint, tmp_path, _blip_config(BLIP))


def test_a_given_folder_without_a_tokenizer_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    """Using another tokenizer would hide a typing mistake."""
    _put_vocabulary(checkpoint.parent / "tokenizer")
    with pytest.raises(CheckpointError, match=r"has no tokenizer: there is neither tokenizer\.json nor vocab\.txt"):
        processors.find_tokenizer(checkpoint, tmp_path / "nowhere", _blip_config(BLIP))


@pytest.mark.parametrize("repository", ["bert-base-uncased", "google-bert/bert-base-uncased"])
def test_the_published_vocabulary_comes_from_the_local_cache(checkpoint: Path, cache: Path, repository: str) -> None:
    """The repository has two names, and each has its own folder in the cache."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0123abcd")
    (folder / "snapshots/0123abcd").mkdir(parents=True)
    pieces = [*(GOLDEN / "vocab.txt").read_text().split(), *(f"word{number}" for number in range(30_522 - PLAIN))]
    (folder / "snapshots/0123abcd/vocab.txt").write_text("\n".join(pieces))
    words = processors.find_tokenizer(checkpoint, None, _blip_config(30_524))
    assert words.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [30_522, 30_523]


def test_a_missing_published_vocabulary_names_the_download_command(checkpoint: Path) -> None:
    """Nothing is downloaded automatically. Without file names, `hf download` would fetch gigabytes."""
    with pytest.raises(CheckpointError, match=r"hf download bert-base-uncased vocab\.txt$"):
        processors.find_tokenizer(checkpoint, None, _blip_config(30_524))


def test_a_missing_unpublished_vocabulary_names_the_option(checkpoint: Path) -> None:
    """Only the published vocabulary can be downloaded."""
    with pytest.raises(CheckpointError, match=r"No tokenizer of 600 word pieces(?s:.)*--tokenizer DIR"):
        processors.find_tokenizer(checkpoint, None, _blip_config(BLIP))


def test_blip_images_are_resized_without_cropping(tmp_path: Path) -> None:
    """PIL's bicubic resize, then CLIP's mean and standard deviation. Grey images become RGB."""
    made = processors.build(_blip_config(BLIP, 32), BertTokenizer(vocab=str(GOLDEN / "vocab.txt")))
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    prepared = made(images=[picture, picture.convert("L")], return_tensors="pt")["pixel_values"]
    squashed = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    expected = torch.from_numpy(
        (squashed - np.array(USUAL.mean, np.float32)) / np.array(USUAL.std, np.float32)
    ).permute(2, 0, 1)
    assert prepared.shape == (1, 2, 3, 32, 32)  # the two images of one pair
    torch.testing.assert_close(prepared[0, 0], expected, rtol=0, atol=1e-5)


def _clip_config(pieces: int, **text: int) -> MadtpClipConfig:
    """The configuration of a CLIP with this number of word pieces."""
    text = {"bos_token_id": pieces - 2, "eos_token_id": pieces - 1, "max_position_embeddings": 24, **text}
    return MadtpClipConfig(text_config={"vocab_size": pieces, **text}, vision_config={"image_size": 32})


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json"])
@pytest.mark.parametrize("place", ["blip-tokenizer", "tokenizer", "."])
def test_a_clip_tokenizer_next_to_the_checkpoint_is_found(checkpoint: Path, place: str, form: str) -> None:
    """In one file, or as vocabulary and merges. It adds start and end, and limits texts to the positions."""
    clip_words(checkpoint.parent / place, 300, form)
    found = processors.find(checkpoint, None, _clip_config(300))
    assert found.tokenizer("a dog")["input_ids"] == [
        298,
        *found.tokenizer.convert_tokens_to_ids(["a</w>", "dog</w>"]),
        299,
    ]
    assert found.tokenizer.model_max_length == 24
    assert processors.special_ids(_clip_config(300), found.tokenizer) == {
        "bos_token_id": 298,
        "eos_token_id": 299,
        "pad_token_id": 299,
    }


def test_a_vocabulary_without_merges_is_not_a_tokenizer(checkpoint: Path) -> None:
    """Every word would be split into letters."""
    clip_words(checkpoint.parent / "tokenizer", 300, "vocab.json")
    (checkpoint.parent / "tokenizer/merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"there is no tokenizer\.json or vocab\.json with merges\.txt in "):
        processors.find(checkpoint, None, _clip_config(300))


def test_each_family_skips_the_tokenizer_of_the_other(checkpoint: Path) -> None:
    """Both may be in one folder."""
    _put_vocabulary(checkpoint.parent / "blip-tokenizer")
    clip_words(checkpoint.parent / "tokenizer", 300, "tokenizer.json")
    assert isinstance(processors.find(checkpoint, None, _clip_config(300)).tokenizer, CLIPTokenizer)
    assert isinstance(processors.find_tokenizer(checkpoint, None, _blip_config(BLIP)), BertTokenizer)


def test_a_clip_tokenizer_with_another_end_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """It has the right size, but the model would read the text's result from a wrong token."""
    words = clip_words(tmp_path / "words", 300, "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"ends a text with word piece 299(?s:.)*from word piece 42"):
        processors.find(checkpoint, words, _clip_config(300, eos_token_id=42))


def test_a_clip_tokenizer_of_another_size_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Its token numbers would refer to other words."""
    words = clip_words(tmp_path / "words", 300, "vocab.json")
    with pytest.raises(CheckpointError, match="300 word pieces, but the checkpoint has 400"):
        processors.find(checkpoint, words, _clip_config(400))


@pytest.mark.parametrize("model", ["base-patch32", "large-patch14-336"])
def test_the_published_clip_tokenizer_comes_from_the_local_cache(checkpoint: Path, cache: Path, model: str) -> None:
    """All models of OpenAI share one tokenizer."""
    folder = cache / f"models--openai--clip-vit-{model}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0123abcd")
    clip_words(folder / "snapshots/0123abcd", 49_408, "vocab.json")
    found = processors.find(checkpoint, None, _clip_config(49_408))
    assert found.tokenizer.eos_token_id == 49_407


def test_a_missing_published_clip_tokenizer_names_the_download_command(checkpoint: Path) -> None:
    """It fetches two small files and not the weights."""
    command = r"hf download openai/clip-vit-base-patch32 vocab\.json merges\.txt$"
    with pytest.raises(CheckpointError, match=command):
        processors.find(checkpoint, None, _clip_config(49_408))
    with pytest.raises(CheckpointError, match=r"No tokenizer of 300 word pieces(?s:.)*--tokenizer DIR"):
        processors.find(checkpoint, None, _clip_config(300))


def test_clip_images_are_cropped(checkpoint: Path) -> None:
    """PIL's bicubic resize of the shorter side, then the square in the middle."""
    clip_words(checkpoint.parent, 300, "tokenizer.json")
    made = processors.find(checkpoint, None, _clip_config(300))
    pixels = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    prepared = made(images=[picture, picture.convert("L")], return_tensors="pt")["pixel_values"]
    resized = np.asarray(picture.resize((64, 32), Image.Resampling.BICUBIC), dtype=np.float32)[:, 16:48] / 255
    expected = torch.from_numpy((resized - np.array(USUAL.mean, np.float32)) / np.array(USUAL.std, np.float32))
    assert prepared.shape == (2, 3, 32, 32)
    torch.testing.assert_close(prepared[0], expected.permute(2, 0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "resample": 2}),
        ("processor_config.json", {"image_processor": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7],
                                                       "resample": 2, "size": {"shortest_edge": 7}}}),
        ("preprocess_config.json", {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear"}),
        ("open_clip_config.json", {"preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7],
                                                      "interpolation": "bilinear"}, "model_cfg": {"embed_dim": 3}}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("folder", [True, False])
def test_image_settings_next_to_a_checkpoint_are_used(
    checkpoint: Path, folder: bool, name: str, content: object
) -> None:
    """With other settings than in training, images look washed out. The image size is the checkpoint's own."""
    (checkpoint.parent / name).write_text(json.dumps(content))
    clip_words(checkpoint.parent, 300, "tokenizer.json")
    made = processors.find(checkpoint.parent if folder else checkpoint, None, _clip_config(300)).image_processor
    assert (list(made.image_mean), list(made.image_std), made.resample) == ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7], 2)
    assert made.size["shortest_edge"] == made.crop_size["width"] == 32
    blip = processors.build(
        _blip_config(BLIP), BertTokenizer(vocab=str(GOLDEN / "vocab.txt")), processors.image_settings(checkpoint)
    )
    assert (list(blip.image_processor.image_mean), blip.image_processor.resample) == ([0.1, 0.2, 0.3], 2)


def test_a_file_without_image_settings_changes_nothing(checkpoint: Path) -> None:
    """transformers writes a file with only the processor's class next to the file with the settings."""
    assert processors.image_settings(checkpoint) == USUAL
    (checkpoint.parent / "preprocessor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    assert processors.image_settings(checkpoint) == USUAL
    (checkpoint.parent / "processor_config.json").write_text('{"image_processor": {"image_mean": [0, 0, 0]}}')
    assert processors.image_settings(checkpoint).mean == (0, 0, 0)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"mean": [1, 2]}', '{"std": [0, 1, 1]}', '{"mean": ["a", 1, 2]}', '{"image_std": [NaN, 1, 1]}',
     '{"interpolation": "sinc"}', '{"resample": 77}', '{"mean": 3}'],
)  # fmt: skip
def test_invalid_image_settings_are_refused(checkpoint: Path, content: str) -> None:
    """Otherwise they would be used or silently ignored."""
    (checkpoint.parent / "preprocess_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"preprocess_config\.json"):
        processors.image_settings(checkpoint)
