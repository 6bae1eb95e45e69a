"""BLIP checkpoints of Salesforce: sizes come from the shapes, and outputs equal those of the original code."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from madtp_cli import models
from madtp_cli.checkpoint import formats, inspection, loading
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError, UsageError
from madtp_cli.models.blip.towers import MadtpBlipConfig

PRETRAINED = "blip_nlvr_from_pretrain_c"


def test_logits_equal_those_of_the_original(
    golden: Path, overrides: CheckpointOverrides, compared_logits: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    """Every tensor changes some logit, so a wrong name, epsilon or number of heads is found."""
    found = inspection.recognise(golden / "blip_nlvr_a/checkpoint.pth", overrides)
    ours, original = compared_logits(loading.build(found), "blip_nlvr_a")
    torch.testing.assert_close(ours, original, rtol=0, atol=1e-4)


def test_sizes_are_read_off_the_shapes(golden: Path) -> None:
    """A wrong size could load without an error if the shapes match by chance."""
    found = inspection.inspect(golden / "blip_nlvr_a/checkpoint.pth", head_width=16)
    assert found.towers["vision"] == {"layers": 3, "width": 48, "heads": 3, "feed_forward": 192, "image_size": 96,
                                      "patch_size": 16, "tokens": 37}  # fmt: skip
    assert found.towers["text"] == {"layers": 8, "width": 32, "heads": 2, "feed_forward": 96, "vocabulary": 600,
                                    "positions": 64}  # fmt: skip
    assert any("16 (as given)" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "width", "heads", "depth"), [("blip_nlvr_base", 768, 12, 12), ("blip_nlvr_large", 1024, 16, 24)]
)
def test_a_published_model_has_exactly_the_keys_of_our_class(
    inventory: Callable[[str], Source], name: str, width: int, heads: int, depth: int
) -> None:
    """Only the keys and shapes of the published files are stored with the tests."""
    source = inventory(name)
    found = inspection.compare(source.path, formats.recognise(source, CheckpointOverrides()))
    assert (found.missing, found.unexpected, found.reshaped, found.refusal) == ([], [], {}, None)
    assert found.matched == len(source.weights) - 1  # position_ids is not a weight
    assert found.parameters == sum(value.numel() for value in source.weights.values() if value.is_floating_point())
    vision = found.towers["vision"]
    assert (vision["width"], vision["heads"], vision["layers"], vision["image_size"]) == (width, heads, depth, 384)
    assert (found.towers["text"]["heads"], found.towers["text"]["vocabulary"]) == (12, 30524)


@pytest.mark.parametrize("task", ["vqa", "caption", "retrieval"])
def test_tied_weights_count_once(inventory: Callable[[str], Source], task: str) -> None:
    """The output layer of a decoder is its word embeddings. Published files have both, 23 million numbers each."""
    source = inventory(f"blip_{task}_base")
    recognised = formats.recognise(source, CheckpointOverrides())
    with torch.device("meta"):
        config = MadtpBlipConfig.from_dict(dict(recognised.config))
        model = models.get(models.kind_of(config))(config)
    expected = sum(value.numel() for value in model.parameters())
    assert inspection.compare(source.path, recognised).parameters == expected


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("task", ["vqa", "caption", "retrieval", "itm"])
def test_a_published_model_of_any_task_has_exactly_the_keys_of_its_class(
    inventory: Callable[[str], Source], transformers_model: Callable[[Recognised], Any], task: str, size: str
) -> None:
    """The class of transformers must have every tensor that is not dropped, for both sizes of the image tower."""
    source = inventory(f"blip_{task}_{size}")
    found = formats.recognise(source, CheckpointOverrides())
    assert found.refusal is None
    assert found.task == ("retrieval" if task == "itm" else task)
    transformers_model(found)
    assert len(found.weights) + sum(map(len, found.dropped.values())) == len(source.weights)
    vision, text = found.config["vision_config"], found.config["text_config"]
    assert vision["num_attention_heads"] == {"base": 12, "large": 16}[size]
    assert vision["image_size"] == (480 if task == "vqa" else 384)
    assert (text["num_attention_heads"], text["hidden_size"], text["vocab_size"]) == (12, 768, 30524)
    assert text["encoder_hidden_size"] == vision["hidden_size"]
    assert found.config.get("image_text_hidden_size") == (256 if found.task == "retrieval" else None)
    assert text.get("label_smoothing") == (0.1 if task in ("vqa", "caption") else None)


@pytest.mark.parametrize(
    ("name", "task"), [("blip_pretrain_base", "pretraining"), ("blip_feature_extractor_base", "features")]
)
def test_a_blip_without_a_task_is_recognised_and_refused(
    inventory: Callable[[str], Source], name: str, task: str
) -> None:
    """If it were used as a fine-tuned BLIP, its head would have random values."""
    found = formats.recognise(inventory(name), CheckpointOverrides())
    assert found.task == task
    assert found.refusal is not None
    assert found.config["vision_config"]["hidden_size"] == 768


def test_a_pre_trained_blip_is_refused_with_the_reason(golden: Path, overrides: CheckpointOverrides) -> None:
    """Many users download this file first."""
    found = inspection.recognise(golden / PRETRAINED / "pretrain.pth", overrides)
    assert found.task == "pretraining"
    assert found.refusal is not None
    assert "has no NLVR2 head" in found.refusal
    assert "Fine-tune it first" in found.refusal


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (("visual_encoder.",), "the image tower of a BLIP alone"),
        (("text_encoder.",), "no image tower"),
        (("visual_encoder.", "Qformer."), "BLIP-2"),
    ],
)
def test_parts_of_a_blip_are_refused(inventory: Callable[[str], Source], parts: tuple[str, ...], reason: str) -> None:
    """So is BLIP-2 of LAVIS, whose image tower has the same name."""
    weights = dict(inventory("blip_vqa_base").weights) | {"Qformer.bert.a": torch.zeros(1)}
    cut = {key: value for key, value in weights.items() if key.startswith(parts)}
    refusal = formats.recognise(Source(Path("part.pth"), "pickle", cut), CheckpointOverrides()).refusal
    assert refusal is not None
    assert reason in refusal


@pytest.fixture(scope="module")
def vqa(golden: Path, overrides: CheckpointOverrides, transformers_model: Callable[[Recognised], Any]) -> Any:
    """The golden VQA checkpoint in the class of transformers."""
    return transformers_model(formats.recognise(read(golden / "blip_vqa_a/checkpoint.pth"), overrides))


def test_question_states_equal_those_of_the_original(golden: Path, vqa: Any) -> None:
    """They depend on both encoders."""
    inputs, outputs = _case(golden, "blip_vqa_a")
    with torch.no_grad():
        images = vqa.vision_model(inputs["pixel_values"].float()).last_hidden_state
        states = vqa.text_encoder(inputs["question_ids"], inputs["question_mask"], encoder_hidden_states=images)
    torch.testing.assert_close(images, outputs["vision.out"], rtol=0, atol=1e-4)
    torch.testing.assert_close(states.last_hidden_state, outputs["question.layer.2"], rtol=0, atol=1e-4)


def test_answer_logits_equal_those_of_the_original(golden: Path, vqa: Any) -> None:
    """Questions have no padding here, since transformers ignores the mask of the decoder's cross-attention."""
    inputs, outputs = _case(golden, "blip_vqa_a")
    questions = torch.arange(len(inputs["n"])).repeat_interleave(inputs["n"])
    for answer, question in enumerate(questions.tolist()):
        words = int(inputs["question_mask"][question].sum())
        length = int(inputs["answer_mask"][answer].sum())
        with torch.no_grad():
            logits = vqa.text_decoder(
                inputs["answer_ids"][answer : answer + 1, :length],
                encoder_hidden_states=outputs["question.layer.2"][question : question + 1, :words],
            ).logits
        torch.testing.assert_close(logits[0], outputs["answer.logits"][answer, :length], rtol=0, atol=1e-4)


def _case(golden: Path, case: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return load_file(golden / case / "inputs.safetensors"), load_file(golden / case / "outputs.safetensors")


def test_tied_weights_are_added(
    inventory: Callable[[str], Source], transformers_model: Callable[[Recognised], Any]
) -> None:
    """A file may leave out an output layer that is tied to the word embeddings."""
    source = inventory("blip_caption_base")
    weights = {key: value for key, value in source.weights.items() if ".cls.predictions.decoder." not in key}
    transformers_model(formats.recognise(Source(source.path, "pickle", weights), CheckpointOverrides()))


def test_tensors_of_masked_language_modelling_are_dropped(inventory: Callable[[str], Source]) -> None:
    """A text encoder that was initialised from BERT may still have its output layer, which no task uses."""
    source = inventory("blip_vqa_base")
    unused = {"text_encoder.cls.predictions.bias": torch.zeros(1), "text_encoder.pooler.dense.bias": torch.zeros(1)}
    found = formats.recognise(Source(source.path, "pickle", {**source.weights, **unused}), CheckpointOverrides())
    assert found.dropped["masked language modelling"] == list(unused)
    assert not unused.keys() & found.weights.keys()


def test_resized_positions_equal_those_of_the_original(golden: Path) -> None:
    """The golden pre-trained file has 64 pixels, and the original code resized it to 96."""
    overrides = CheckpointOverrides(head_width=16, image_size=96)
    found = inspection.recognise(golden / PRETRAINED / "pretrain.pth", overrides)
    original = read(golden / PRETRAINED / "after_load_new_values.pth").weights["visual_encoder.pos_embed"]
    ours = found.weights["vision_model.embeddings.position_embedding"]
    torch.testing.assert_close(ours, original, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_wrappers_and_prefixes_do_not_matter(golden: Path, tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    """Data-parallel training, torch.compile and training scripts add them."""
    weights = read(golden / "blip_nlvr_a/checkpoint.pth").weights
    content: Mapping[str, Any] = {prefix + key: value for key, value in weights.items()}
    torch.save({wrapper: content} if wrapper else content, tmp_path / "wrapped.pth")
    assert read(tmp_path / "wrapped.pth").weights.keys() == weights.keys()


def test_momentum_copies_and_queues_are_dropped_with_a_reason(inventory: Callable[[str], Source]) -> None:
    """They are half of a retrieval file, and only training needs them."""
    dropped = formats.recognise(inventory("blip_retrieval_base"), CheckpointOverrides()).dropped
    assert {"image_queue", "text_queue", "idx_queue", "ptr_queue"} == set(dropped["queues of the contrastive loss"])
    assert dropped["temperature of the contrastive loss"] == ["temp"]
    assert "vision_proj_m.weight" in dropped["momentum copies"]


@pytest.mark.parametrize(("temperature", "kept"), [(0.05, 0.05), (0.9, 0.5), (0.0, 0.001)])
def test_the_temperature_of_the_contrastive_loss_is_kept(
    inventory: Callable[[str], Source], temperature: float, kept: float
) -> None:
    """Training starts at 0.07 and changes it; the original limits it to 0.001 to 0.5."""
    source = inventory("blip_retrieval_base")
    weights = {**source.weights, "temp": torch.tensor(temperature)}
    found = formats.recognise(dataclasses.replace(source, weights=weights), CheckpointOverrides())
    assert math.exp(-found.config["logit_scale_init_value"]) == pytest.approx(kept)
    madtp_weights = {**weights, "space_dict": torch.zeros(3, 4)}
    again = formats.recognise(dataclasses.replace(source, weights=madtp_weights), CheckpointOverrides())
    assert again.config["logit_scale_init_value"] == found.config["logit_scale_init_value"]


def test_without_a_temperature_the_default_is_used(inventory: Callable[[str], Source]) -> None:
    """The same holds if values are not read, as in `inspect`."""
    source = inventory("blip_retrieval_base")
    without = {key: value for key, value in source.weights.items() if key != "temp"}
    for weights in (without, {**without, "temp": torch.zeros((), device="meta")}):
        found = formats.recognise(dataclasses.replace(source, weights=weights), CheckpointOverrides())
        assert "logit_scale_init_value" not in found.config


def test_an_unknown_number_of_heads_is_an_error(golden: Path) -> None:
    """48 is not a multiple of 64. With a wrong number of heads, the outputs would be nonsense."""
    with pytest.raises(CheckpointError, match=r"width 48 is not a multiple of 64(?s:.)*--head-width"):
        loading.load(golden / "blip_nlvr_a/checkpoint.pth")


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("visual_encoder.blocks.0.attn.qkv.weight", (1152, 768), "1152 rows instead of 2304"),
        ("visual_encoder.blocks.5.mlp.fc1.weight", (2000, 768), "2000 rows instead of 3072"),
        ("text_encoder.encoder.layer.3.attention.self.query.weight", (640, 768), "640 rows instead of 768"),
        ("text_decoder.bert.encoder.layer.11.intermediate.dense.weight", (100, 768), "100 rows instead of 3072"),
    ],
)
def test_a_structurally_pruned_blip_is_refused(
    inventory: Callable[[str], Source], key: str, shape: tuple[int, int], message: str
) -> None:
    """Files of UPop have the same names but smaller matrices."""
    source = inventory("blip_vqa_base")
    assert key in source.weights
    pruned = Source(source.path, "pickle", {**source.weights, key: torch.empty(shape, device="meta")})
    refusal = formats.recognise(pruned, CheckpointOverrides()).refusal
    assert refusal is not None
    assert message in refusal


def test_the_error_for_an_incomplete_file_names_the_missing_tensor(inventory: Callable[[str], Source]) -> None:
    """A KeyError would name neither the file nor the remedy."""
    source = inventory("blip_nlvr_base")
    weights = {key: value for key, value in source.weights.items() if "word_embeddings" not in key}
    with pytest.raises(CheckpointError, match=r"without the tensor .*word_embeddings"):
        formats.recognise(Source(source.path, "pickle", weights), CheckpointOverrides())


def test_an_image_size_that_is_not_a_multiple_of_the_patch_size_is_an_error(golden: Path) -> None:
    """100 pixels are 6.25 patches of 16."""
    with pytest.raises(UsageError, match="100 is not a multiple of the patch size 16"):
        inspection.inspect(golden / "blip_nlvr_a/checkpoint.pth", head_width=16, image_size=100)
