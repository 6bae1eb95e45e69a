"""Salesforce BLIP: sizes from shapes, values from the original code."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from madtp_cli import models
from madtp_cli.checkpoint import formats, load
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source, salesforce_blip
from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError, UsageError
from madtp_cli.models.blip.towers import MadtpBlipConfig

PRETRAINED = "blip_nlvr_from_pretrain_c"


def test_logits_equal_the_originals(
    golden: Path, overrides: CheckpointOverrides, judge: Callable[..., dict[str, Tensor]]
) -> None:
    """Every key matters for some logit, so a wrong name, epsilon or head count shows."""
    found = load.recognise(golden / "blip_nlvr_a/checkpoint.pth", overrides)
    answers = judge(load.build(found), "blip_nlvr_a")
    torch.testing.assert_close(answers["ours"], answers["original"], rtol=0, atol=1e-4)


def test_sizes_are_read_off_the_shapes(golden: Path) -> None:
    """A wrong guess here would load without an error where shapes happen to fit."""
    found = load.inspect(golden / "blip_nlvr_a/checkpoint.pth", head_width=16)
    assert found.towers["vision"] == {"layers": 3, "width": 48, "heads": 3, "feed_forward": 192, "image_size": 96,
                                      "patch_size": 16, "tokens": 37}  # fmt: skip
    assert found.towers["text"] == {"layers": 8, "width": 32, "heads": 2, "feed_forward": 96, "vocabulary": 600,
                                    "positions": 64}  # fmt: skip
    assert any("16 (told)" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "width", "heads", "depth"), [("blip_nlvr_base", 768, 12, 12), ("blip_nlvr_large", 1024, 16, 24)]
)
def test_a_published_size_has_every_key_and_no_other(
    inventory: Callable[[str], Source], name: str, width: int, heads: int, depth: int
) -> None:
    """Nobody can keep the gigabytes at hand, but their keys and shapes."""
    source = inventory(name)
    found = load.compare(source.path, formats.recognise(source, CheckpointOverrides()))
    assert (found.missing, found.unexpected, found.reshaped, found.refusal) == ([], [], {}, None)
    assert found.matched == len(source.weights) - 1  # position_ids are no weights
    assert found.parameters == sum(value.numel() for value in source.weights.values() if value.is_floating_point())
    vision = found.towers["vision"]
    assert (vision["width"], vision["heads"], vision["layers"], vision["image_size"]) == (width, heads, depth, 384)
    assert (found.towers["text"]["heads"], found.towers["text"]["vocabulary"]) == (12, 30524)


@pytest.mark.parametrize("task", ["vqa", "caption", "retrieval"])
def test_weights_with_two_names_count_once(inventory: Callable[[str], Source], task: str) -> None:
    """A decoder's output layer is its word embeddings; the published files have both, 23 million numbers."""
    source = inventory(f"blip_{task}_base")
    recognised = formats.recognise(source, CheckpointOverrides())
    with torch.device("meta"):
        config = MadtpBlipConfig.from_dict(dict(recognised.config))
        model = models.get(models.kind_of(config))(config)
    own = sum(value.numel() for value in model.parameters())
    assert load.compare(source.path, recognised).parameters == own


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("task", ["vqa", "caption", "retrieval", "itm"])
def test_a_published_size_of_any_task_has_every_key_and_no_other(
    inventory: Callable[[str], Source], stock: Callable[[Recognised], Any], task: str, size: str
) -> None:
    """transformers' own class must take all that is not dropped, the large image tower's wider keys included."""
    source = inventory(f"blip_{task}_{size}")
    found = formats.recognise(source, CheckpointOverrides())
    assert found.refusal is None
    assert found.task == ("retrieval" if task == "itm" else task)
    stock(found)
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
def test_a_blip_without_a_task_is_named_and_refused(inventory: Callable[[str], Source], name: str, task: str) -> None:
    """Taking one for a fine-tuned BLIP would fill its head with random values."""
    found = formats.recognise(inventory(name), CheckpointOverrides())
    assert found.task == task
    assert found.refusal is not None
    assert found.config["vision_config"]["hidden_size"] == 768


def test_a_pre_trained_blip_says_why_it_is_refused(golden: Path, overrides: CheckpointOverrides) -> None:
    """It is the file that people download first."""
    found = load.recognise(golden / PRETRAINED / "pretrain.pth", overrides)
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
def test_what_is_no_whole_blip_is_refused(
    inventory: Callable[[str], Source], parts: tuple[str, ...], reason: str
) -> None:
    """A part of a file, and LAVIS's BLIP-2, whose image tower has the same name."""
    weights = dict(inventory("blip_vqa_base").weights) | {"Qformer.bert.a": torch.zeros(1)}
    cut = {key: value for key, value in weights.items() if key.startswith(parts)}
    refusal = formats.recognise(Source(Path("part.pth"), "pickle", cut), CheckpointOverrides()).refusal
    assert refusal is not None
    assert reason in refusal


@pytest.fixture(scope="module")
def vqa(golden: Path, overrides: CheckpointOverrides, stock: Callable[[Recognised], Any]) -> Any:
    """The golden VQA checkpoint in transformers' class."""
    return stock(formats.recognise(read(golden / "blip_vqa_a/checkpoint.pth"), overrides))


def test_question_states_equal_the_originals(golden: Path, vqa: Any) -> None:
    """Both encoders, in the class that transformers has for the task."""
    given, original = _case(golden, "blip_vqa_a")
    with torch.no_grad():
        images = vqa.vision_model(given["pixel_values"].float()).last_hidden_state
        states = vqa.text_encoder(given["question_ids"], given["question_mask"], encoder_hidden_states=images)
    torch.testing.assert_close(images, original["vision.out"], rtol=0, atol=1e-4)
    torch.testing.assert_close(states.last_hidden_state, original["question.layer.2"], rtol=0, atol=1e-4)


def test_answer_logits_equal_the_originals(golden: Path, vqa: Any) -> None:
    """The decoder, each question without padding, since transformers drops the mask of what a decoder looks at."""
    given, original = _case(golden, "blip_vqa_a")
    questions = torch.arange(len(given["n"])).repeat_interleave(given["n"])
    for answer, question in enumerate(questions.tolist()):
        words = int(given["question_mask"][question].sum())
        length = int(given["answer_mask"][answer].sum())
        with torch.no_grad():
            logits = vqa.text_decoder(
                given["answer_ids"][answer : answer + 1, :length],
                encoder_hidden_states=original["question.layer.2"][question : question + 1, :words],
            ).logits
        torch.testing.assert_close(logits[0], original["answer.logits"][answer, :length], rtol=0, atol=1e-4)


def _case(golden: Path, case: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return load_file(golden / case / "inputs.safetensors"), load_file(golden / case / "outputs.safetensors")


def test_tied_weights_are_completed(inventory: Callable[[str], Source], stock: Callable[[Recognised], Any]) -> None:
    """A file may leave out an output layer that is one with the word embeddings."""
    source = inventory("blip_caption_base")
    weights = {key: value for key, value in source.weights.items() if ".cls.predictions.decoder." not in key}
    stock(formats.recognise(Source(source.path, "pickle", weights), CheckpointOverrides()))


def test_leftovers_of_masked_language_modelling_are_dropped(inventory: Callable[[str], Source]) -> None:
    """A text encoder that began as a BERT may still have its output layer; no task reads it."""
    source = inventory("blip_vqa_base")
    left = {"text_encoder.cls.predictions.bias": torch.zeros(1), "text_encoder.pooler.dense.bias": torch.zeros(1)}
    found = formats.recognise(Source(source.path, "pickle", {**source.weights, **left}), CheckpointOverrides())
    assert found.dropped["masked language modelling"] == list(left)
    assert not left.keys() & found.weights.keys()


@pytest.fixture(scope="module")
def started(golden: Path) -> Recognised:
    """The golden pre-trained file as the start of a fine-tune at 96 instead of 64 pixels."""
    found = load.recognise(golden / PRETRAINED / "pretrain.pth", CheckpointOverrides(head_width=16, image_size=96))
    return salesforce_blip.nlvr_from_pretrained(found)


def test_a_fine_tune_starts_from_the_originals_values(golden: Path, started: Recognised) -> None:
    """Bit for bit where the original copies; the resized positions to rounding."""
    sources = json.loads((golden / PRETRAINED / "after_load_sources.json").read_text())
    pretrained = read(golden / PRETRAINED / "pretrain.pth").weights
    ours = salesforce_blip.to_original(started.weights)
    for key, origin in sources.items():
        if not key.endswith("position_ids"):
            assert torch.equal(ours[key], pretrained[origin]), key
    new = read(golden / PRETRAINED / "after_load_new_values.pth").weights
    torch.testing.assert_close(ours["visual_encoder.pos_embed"], new["visual_encoder.pos_embed"], rtol=0, atol=1e-6)


def test_what_starts_fresh_and_what_is_unused_are_the_originals(golden: Path, started: Recognised) -> None:
    """A weight that silently stayed random would only show as a slow fine-tune."""
    overrides = json.loads((golden / PRETRAINED / "info.json").read_text())
    absent = load.compare(Path("pretrain.pth"), _without_fresh(started))
    assert sorted(absent.missing) == overrides["missing_keys"]
    assert (absent.unexpected, absent.reshaped) == ([], {})
    pretrained = read(golden / PRETRAINED / "pretrain.pth").weights
    twinned = {key for key in pretrained if key.startswith("text_encoder.")
               and (".crossattention.self." in key or ".crossattention.output.dense." in key)}  # fmt: skip
    unused = {key for keys in started.dropped.values() for key in keys} - {"text_encoder.embeddings.position_ids"}
    assert unused == (set(overrides["unexpected_keys"]) & set(pretrained)) - twinned


def _without_fresh(found: Recognised) -> Recognised:
    return Recognised(found.format, found.task, found.config, found.weights)


def test_a_fine_tune_has_the_originals_logits(
    golden: Path, started: Recognised, judge: Callable[..., dict[str, Tensor]]
) -> None:
    """With the original's random head and merge layer put in place of ours."""
    model = load.build(started)
    new = read(golden / PRETRAINED / "after_load_new_values.pth").weights
    model.load_state_dict({salesforce_blip.to_transformers(key): value for key, value in new.items()}, strict=False)
    answers = judge(model, PRETRAINED)
    torch.testing.assert_close(answers["ours"], answers["original"], rtol=0, atol=1e-4)


def test_the_twins_of_a_cross_attention_are_apart(started: Recognised) -> None:
    """In one storage they would stay equal however long the fine-tune."""
    model = load.build(started)
    twins = model.text_encoder.encoder.layer[0].crossattention
    with torch.no_grad():
        twins.self0.key.weight.add_(1)
    assert not torch.equal(twins.self0.key.weight, twins.self1.key.weight)
    assert not torch.equal(
        twins.self0.key.weight, started.weights["text_encoder.encoder.layer.0.crossattention.self0.key.weight"]
    )


def test_fresh_parts_have_values(started: Recognised) -> None:
    """They are built on the meta device, where a forgotten parameter holds whatever was in memory."""
    model = load.build(started)
    for value in model.cls_head.state_dict().values():
        assert value.isfinite().all()
        assert value.abs().max() < 1


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_wrappers_and_prefixes_do_not_matter(golden: Path, tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    """Data-parallel training, torch.compile and every training script leave their own."""
    weights = read(golden / "blip_nlvr_a/checkpoint.pth").weights
    content: Mapping[str, Any] = {prefix + key: value for key, value in weights.items()}
    torch.save({wrapper: content} if wrapper else content, tmp_path / "wrapped.pth")
    assert read(tmp_path / "wrapped.pth").weights.keys() == weights.keys()


def test_momentum_copies_and_queues_are_left_out_by_name(inventory: Callable[[str], Source]) -> None:
    """They are half of a retrieval file, and no inference needs them."""
    dropped = formats.recognise(inventory("blip_retrieval_base"), CheckpointOverrides()).dropped
    assert {"image_queue", "text_queue", "idx_queue", "ptr_queue"} == set(dropped["queues of the contrastive loss"])
    assert dropped["temperature of the contrastive loss"] == ["temp"]
    assert "vision_proj_m.weight" in dropped["momentum copies"]


@pytest.mark.parametrize(("temperature", "kept"), [(0.05, 0.05), (0.9, 0.5), (0.0, 0.001)])
def test_the_contrastive_losss_temperature_is_kept(
    inventory: Callable[[str], Source], temperature: float, kept: float
) -> None:
    """0.07 is where it starts, not where it ends; the original holds it between 0.001 and 0.5."""
    source = inventory("blip_retrieval_base")
    weights = {**source.weights, "temp": torch.tensor(temperature)}
    found = formats.recognise(dataclasses.replace(source, weights=weights), CheckpointOverrides())
    assert math.exp(-found.config["logit_scale_init_value"]) == pytest.approx(kept)
    by_madtp = {**weights, "space_dict": torch.zeros(3, 4)}
    again = formats.recognise(dataclasses.replace(source, weights=by_madtp), CheckpointOverrides())
    assert again.config["logit_scale_init_value"] == found.config["logit_scale_init_value"]


def test_a_file_without_a_temperature_has_the_usual_one(inventory: Callable[[str], Source]) -> None:
    """Nor has one whose values are not read, as by `inspect`."""
    source = inventory("blip_retrieval_base")
    without = {key: value for key, value in source.weights.items() if key != "temp"}
    for weights in (without, {**without, "temp": torch.zeros((), device="meta")}):
        found = formats.recognise(dataclasses.replace(source, weights=weights), CheckpointOverrides())
        assert "logit_scale_init_value" not in found.config


def test_names_return_to_the_originals(inventory: Callable[[str], Source]) -> None:
    """examples/blip.pt is written with these names, for the original's loader."""
    keys = inventory("blip_nlvr_base").weights
    ours = {salesforce_blip.to_transformers(key): value for key, value in keys.items()}
    assert salesforce_blip.to_original(ours).keys() == keys.keys()


def test_heads_that_cannot_be_told_are_asked_for(golden: Path) -> None:
    """48 is no multiple of 64; a guess would load, and answer nonsense."""
    with pytest.raises(CheckpointError, match=r"width 48 is no multiple of 64(?s:.)*--head-width"):
        load.load(golden / "blip_nlvr_a/checkpoint.pth")


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("visual_encoder.blocks.0.attn.qkv.weight", (1152, 768), "1152 rows, not 2304"),
        ("visual_encoder.blocks.5.mlp.fc1.weight", (2000, 768), "2000 rows, not 3072"),
        ("text_encoder.encoder.layer.3.attention.self.query.weight", (640, 768), "640 rows, not 768"),
        ("text_decoder.bert.encoder.layer.11.intermediate.dense.weight", (100, 768), "100 rows, not 3072"),
    ],
)
def test_a_structurally_pruned_blip_is_refused(
    inventory: Callable[[str], Source], key: str, shape: tuple[int, int], said: str
) -> None:
    """UPop's files have the same names and smaller matrices."""
    source = inventory("blip_vqa_base")
    assert key in source.weights
    pruned = Source(source.path, "pickle", {**source.weights, key: torch.empty(shape, device="meta")})
    refusal = formats.recognise(pruned, CheckpointOverrides()).refusal
    assert refusal is not None
    assert said in refusal


def test_an_incomplete_file_names_what_its_sizes_need(inventory: Callable[[str], Source]) -> None:
    """A KeyError would say neither which file nor what to do."""
    source = inventory("blip_nlvr_base")
    weights = {key: value for key, value in source.weights.items() if "word_embeddings" not in key}
    with pytest.raises(CheckpointError, match=r"without the tensor .*word_embeddings"):
        formats.recognise(Source(source.path, "pickle", weights), CheckpointOverrides())


def test_an_image_size_off_the_patch_grid_is_refused(golden: Path) -> None:
    """100 pixels are six and a quarter patches of 16."""
    with pytest.raises(UsageError, match="100 is no multiple of the patch size 16"):
        load.inspect(golden / "blip_nlvr_a/checkpoint.pth", head_width=16, image_size=100)
