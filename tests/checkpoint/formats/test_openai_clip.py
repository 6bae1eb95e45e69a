"""CLIP checkpoints of OpenAI: sizes come from the shapes, and outputs equal those of the original code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError

#: Image size, patch size, vision width, vision heads, vision layers, text width, text heads, joint width.
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
def test_logits_equal_those_of_the_original(
    golden: Path, archive: Source, transformers_model: Callable[[Recognised], Any], tmp_path: Path, plain: bool
) -> None:
    """The file is an archive or a state dict. A wrong projection, activation or number of heads changes the logits."""
    if plain:
        torch.save(dict(archive.weights), tmp_path / "clip.pt")
    found = formats.recognise(read(tmp_path / "clip.pt") if plain else archive, CheckpointOverrides())
    assert found.format == ("OpenAI CLIP" if plain else "OpenAI CLIP (TorchScript archive)")
    inputs = load_file(golden / "clip_a/inputs.safetensors")
    outputs = load_file(golden / "clip_a/outputs.safetensors")
    with torch.no_grad():
        output = transformers_model(found)(inputs["token_ids"], inputs["pixel_values"].float())
    torch.testing.assert_close(output.logits_per_image, outputs["logits_per_image"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "sizes"), PUBLISHED.items())
def test_a_published_model_has_exactly_the_keys_of_its_class(
    inventory: Callable[[str], Source],
    transformers_model: Callable[[Recognised], Any],
    name: str,
    sizes: tuple[int, ...],
) -> None:
    """Only the keys and shapes of the published files are stored with the tests."""
    source = inventory(name)
    found = formats.recognise(source, CheckpointOverrides())
    assert (found.task, found.refusal, found.dropped) == ("retrieval", None, {})
    transformers_model(found)
    assert sum(value.numel() for value in found.weights.values()) == sum(map(torch.numel, source.weights.values()))
    vision, text = found.config["vision_config"], found.config["text_config"]
    assert sizes == (
        vision["image_size"], vision["patch_size"], vision["hidden_size"], vision["num_attention_heads"],
        vision["num_hidden_layers"], text["hidden_size"], text["num_attention_heads"], found.config["projection_dim"],
    )  # fmt: skip
    assert (text["max_position_embeddings"], text["vocab_size"], text["eos_token_id"]) == (77, 49408, 49407)


def test_half_precision_is_kept_as_stored(archive: Source) -> None:
    """The data type of the computation is chosen when the model is built."""
    weights = formats.recognise(archive, CheckpointOverrides()).weights
    assert weights["visual_projection.weight"].dtype == torch.float16
    assert weights["logit_scale"].dtype == torch.float32


def test_tensors_other_than_weights_are_dropped_with_a_reason(archive: Source) -> None:
    """Archives store sizes as tensors, and older OpenCLIP files store the causal mask."""
    masked = Source(archive.path, "pickle", {**archive.weights, "attn_mask": torch.zeros(77, 77)})
    dropped = formats.recognise(masked, CheckpointOverrides()).dropped
    assert set(dropped["sizes that the shapes show"]) == {"input_resolution", "context_length", "vocab_size"}
    assert dropped["causal mask"] == ["attn_mask"]


def test_activation_and_head_width_can_be_given(archive: Source) -> None:
    """Neither is in the file, and models trained with OpenCLIP have plain GELU."""
    config = formats.recognise(archive, CheckpointOverrides(head_width=32, activation="gelu")).config
    for tower, heads in (("vision_config", 4), ("text_config", 2)):
        assert (config[tower]["hidden_act"], config[tower]["num_attention_heads"]) == ("gelu", heads)


def test_another_image_size_resizes_the_positions(archive: Source) -> None:
    """4 by 4 patches at 64 pixels become 6 by 6 at 96. The position of [CLS] does not change."""
    key = "vision_model.embeddings.position_embedding.weight"
    found = formats.recognise(archive, CheckpointOverrides(image_size=96))
    assert found.weights[key].shape == (37, 128)
    assert torch.equal(found.weights[key][0], archive.weights["visual.positional_embedding"][0])
    assert found.config["vision_config"]["image_size"] == 96


def test_a_resnet_clip_is_refused_with_the_reason() -> None:
    """It has no tokens to prune."""
    names = ("visual.conv1.weight", "visual.layer1.0.conv1.weight", "token_embedding.weight", "ln_final.weight")
    refusal = formats.recognise(
        Source(Path("rn50.pt"), "pickle", {name: torch.zeros(1) for name in names}), CheckpointOverrides()
    )
    assert refusal.refusal is not None
    assert "no tokens to prune" in refusal.refusal


@pytest.mark.parametrize(
    ("image_tower", "reason"), [(True, "without its text tower"), (False, "text tower of a CLIP alone")]
)
def test_one_tower_alone_is_refused(inventory: Callable[[str], Source], image_tower: bool, reason: str) -> None:
    """Such files are made for embeddings alone; retrieval needs both towers."""
    weights = inventory("openai_clip_vit_b16").weights
    cut = {key: value for key, value in weights.items() if key.startswith("visual.") == image_tower}
    refusal = formats.recognise(Source(Path("half.pt"), "pickle", cut), CheckpointOverrides()).refusal
    assert refusal is not None
    assert reason in refusal


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("visual.transformer.resblocks.0.attn.in_proj_weight", (1152, 768), "1152 rows instead of 2304"),
        ("transformer.resblocks.7.mlp.c_fc.weight", (100, 512), "100 rows instead of 2048"),
    ],
)
def test_a_structurally_pruned_clip_is_refused(
    inventory: Callable[[str], Source], key: str, shape: tuple[int, int], message: str
) -> None:
    """Files of UPop have the same names but smaller matrices."""
    source = inventory("openai_clip_vit_b16")
    weights = {**source.weights, key: torch.empty(shape, device="meta")}
    refusal = formats.recognise(Source(source.path, "pickle", weights), CheckpointOverrides()).refusal
    assert refusal is not None
    assert message in refusal


def test_the_error_for_an_incomplete_file_names_the_missing_tensor(inventory: Callable[[str], Source]) -> None:
    """A KeyError would name neither the file nor the remedy."""
    source = inventory("openai_clip_vit_b16")
    weights = {key: value for key, value in source.weights.items() if key != "visual.proj"}
    with pytest.raises(CheckpointError, match=r"a CLIP without the tensor visual\.proj"):
        formats.recognise(Source(source.path, "pickle", weights), CheckpointOverrides())
