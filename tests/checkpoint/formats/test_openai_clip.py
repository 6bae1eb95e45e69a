"""OpenAI's CLIP: sizes from shapes, values from the original code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source, openai_clip
from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError

#: Image size, patch size, image tokens' width, heads and layers, text's width and heads, joint width.
PUBLISHED = {
    "openai_clip_vit_b32": (224, 32, 768, 12, 12, 512, 8, 512),
    "openai_clip_vit_b16": (224, 16, 768, 12, 12, 512, 8, 512),
    "openai_clip_vit_l14": (224, 14, 1024, 16, 24, 768, 12, 768),
    "openai_clip_vit_l14_336": (336, 14, 1024, 16, 24, 768, 12, 768),
}


@pytest.fixture(scope="module")
def archive(golden: Path) -> Source:
    """The golden TorchScript archive."""
    return read(golden / "clip_a/archive.pt")


@pytest.mark.parametrize("plain", [False, True])
def test_logits_equal_the_originals(
    golden: Path, archive: Source, stock: Callable[[Recognised], Any], tmp_path: Path, plain: bool
) -> None:
    """From the archive and from a state dict; a swapped projection, activation or head count would show."""
    if plain:
        torch.save(dict(archive.weights), tmp_path / "clip.pt")
    found = formats.recognise(read(tmp_path / "clip.pt") if plain else archive, CheckpointOverrides())
    assert found.format == ("OpenAI CLIP" if plain else "OpenAI CLIP (TorchScript archive)")
    given = load_file(golden / "clip_a/inputs.safetensors")
    original = load_file(golden / "clip_a/outputs.safetensors")
    with torch.no_grad():
        answer = stock(found)(given["token_ids"], given["pixel_values"].float())
    torch.testing.assert_close(answer.logits_per_image, original["logits_per_image"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "sizes"), PUBLISHED.items())
def test_a_published_size_has_every_key_and_no_other(
    inventory: Callable[[str], Source], stock: Callable[[Recognised], Any], name: str, sizes: tuple[int, ...]
) -> None:
    """Nobody can keep the gigabytes at hand, but their keys and shapes."""
    source = inventory(name)
    found = formats.recognise(source, CheckpointOverrides())
    assert (found.task, found.refusal, found.dropped) == ("retrieval", None, {})
    stock(found)
    assert sum(value.numel() for value in found.weights.values()) == sum(map(torch.numel, source.weights.values()))
    vision, text = found.config["vision_config"], found.config["text_config"]
    assert sizes == (
        vision["image_size"], vision["patch_size"], vision["hidden_size"], vision["num_attention_heads"],
        vision["num_hidden_layers"], text["hidden_size"], text["num_attention_heads"], found.config["projection_dim"],
    )  # fmt: skip
    assert (text["max_position_embeddings"], text["vocab_size"], text["eos_token_id"]) == (77, 49408, 49407)


def test_half_precision_is_kept_as_stored(archive: Source) -> None:
    """What is computed in is the loader's question."""
    weights = formats.recognise(archive, CheckpointOverrides()).weights
    assert weights["visual_projection.weight"].dtype == torch.float16
    assert weights["logit_scale"].dtype == torch.float32


def test_numbers_that_are_no_weights_are_dropped_by_name(archive: Source) -> None:
    """Archives carry their sizes as tensors, older OpenCLIP files the causal mask."""
    masked = Source(archive.path, "pickle", {**archive.weights, "attn_mask": torch.zeros(77, 77)})
    dropped = formats.recognise(masked, CheckpointOverrides()).dropped
    assert set(dropped["sizes that the shapes show"]) == {"input_resolution", "context_length", "vocab_size"}
    assert dropped["causal mask"] == ["attn_mask"]


def test_activation_and_heads_can_be_told(archive: Source) -> None:
    """Neither is in the file; OpenCLIP's own trainings have plain GELU."""
    config = formats.recognise(archive, CheckpointOverrides(head_width=32, activation="gelu")).config
    for tower, heads in (("vision_config", 4), ("text_config", 2)):
        assert (config[tower]["hidden_act"], config[tower]["num_attention_heads"]) == ("gelu", heads)


def test_another_image_size_resizes_the_positions(archive: Source) -> None:
    """4 by 4 patches at 64 pixels are 6 by 6 at 96; [CLS] keeps its own."""
    key = "vision_model.embeddings.position_embedding.weight"
    found = formats.recognise(archive, CheckpointOverrides(image_size=96))
    assert found.weights[key].shape == (37, 128)
    assert torch.equal(found.weights[key][0], archive.weights["visual.positional_embedding"][0])
    assert found.config["vision_config"]["image_size"] == 96


def test_names_return_to_the_originals(inventory: Callable[[str], Source], archive: Source) -> None:
    """The examples are written with these names, for the original's loader."""
    found = formats.recognise(archive, CheckpointOverrides())
    original = openai_clip.to_original(found.weights)
    assert original.keys() == archive.weights.keys() - {"input_resolution", "context_length", "vocab_size"}
    for key, value in original.items():
        assert torch.equal(value, archive.weights[key]), key


def test_a_resnet_clip_is_refused_with_the_reason() -> None:
    """It has no tokens, so no later version will take it either."""
    names = ("visual.conv1.weight", "visual.layer1.0.conv1.weight", "token_embedding.weight", "ln_final.weight")
    refusal = formats.recognise(
        Source(Path("rn50.pt"), "pickle", {name: torch.zeros(1) for name in names}), CheckpointOverrides()
    )
    assert refusal.refusal is not None
    assert "no tokens to prune" in refusal.refusal


@pytest.mark.parametrize(
    ("images", "reason"), [(True, "without its text tower"), (False, "text tower of a CLIP alone")]
)
def test_one_tower_alone_is_refused(inventory: Callable[[str], Source], images: bool, reason: str) -> None:
    """Such files are cut for image or text embedding; there is nothing to retrieve with."""
    weights = inventory("openai_clip_vit_b16").weights
    cut = {key: value for key, value in weights.items() if key.startswith("visual.") == images}
    refusal = formats.recognise(Source(Path("half.pt"), "pickle", cut), CheckpointOverrides()).refusal
    assert refusal is not None
    assert reason in refusal


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("visual.transformer.resblocks.0.attn.in_proj_weight", (1152, 768), "1152 rows, not 2304"),
        ("transformer.resblocks.7.mlp.c_fc.weight", (100, 512), "100 rows, not 2048"),
    ],
)
def test_a_structurally_pruned_clip_is_refused(
    inventory: Callable[[str], Source], key: str, shape: tuple[int, int], said: str
) -> None:
    """UPop's files have the same names and smaller matrices."""
    source = inventory("openai_clip_vit_b16")
    weights = {**source.weights, key: torch.empty(shape, device="meta")}
    refusal = formats.recognise(Source(source.path, "pickle", weights), CheckpointOverrides()).refusal
    assert refusal is not None
    assert said in refusal


def test_an_incomplete_file_names_what_its_sizes_need(inventory: Callable[[str], Source]) -> None:
    """A KeyError would say neither which file nor what to do."""
    source = inventory("openai_clip_vit_b16")
    weights = {key: value for key, value in source.weights.items() if key != "visual.proj"}
    with pytest.raises(CheckpointError, match=r"a CLIP without the tensor visual\.proj"):
        formats.recognise(Source(source.path, "pickle", weights), CheckpointOverrides())
