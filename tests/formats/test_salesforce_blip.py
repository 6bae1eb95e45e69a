"""Salesforce BLIP: sizes from shapes, values from the original code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from madtp_cli import checkpoint, formats
from madtp_cli.errors import CheckpointError, UsageError
from madtp_cli.formats import Recognised, Source, Told, salesforce_blip
from madtp_cli.formats._reading import read

PRETRAINED = "blip_nlvr_from_pretrain_c"
TASKS = [("blip_vqa_base", "vqa"), ("blip_caption_base", "caption"), ("blip_retrieval_base", "retrieval"),
         ("blip_pretrain_base", "pretraining"), ("blip_feature_extractor_base", "features")]  # fmt: skip


def test_logits_equal_the_originals(golden: Path, told: Told, judge: Callable[..., dict[str, Tensor]]) -> None:
    """Every key matters for some logit, so a wrong name, epsilon or head count shows."""
    found = checkpoint.recognise(golden / "blip_nlvr_a/checkpoint.pth", told)
    answers = judge(checkpoint.build(found), "blip_nlvr_a")
    torch.testing.assert_close(answers["ours"], answers["original"], rtol=0, atol=1e-4)


def test_sizes_are_read_off_the_shapes(golden: Path) -> None:
    """A wrong guess here would load without an error where shapes happen to fit."""
    found = checkpoint.inspect(golden / "blip_nlvr_a/checkpoint.pth", head_width=16)
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
    found = checkpoint.compare(source.path, formats.recognise(source, Told()))
    assert (found.missing, found.unexpected, found.reshaped, found.refusal) == ([], [], {}, None)
    assert found.matched == len(source.weights) - 1  # position_ids are no weights
    assert found.parameters == sum(value.numel() for value in source.weights.values() if value.is_floating_point())
    vision = found.towers["vision"]
    assert (vision["width"], vision["heads"], vision["layers"], vision["image_size"]) == (width, heads, depth, 384)
    assert (found.towers["text"]["heads"], found.towers["text"]["vocabulary"]) == (12, 30524)


@pytest.mark.parametrize(("name", "task"), TASKS)
def test_a_blip_for_another_task_is_named_and_refused(inventory: Callable[[str], Source], name: str, task: str) -> None:
    """Taking one for NLVR2 would fill its head with random values."""
    found = formats.recognise(inventory(name), Told())
    assert found.task == task
    assert found.refusal is not None
    assert found.config["vision_config"]["hidden_size"] == 768


def test_a_pre_trained_blip_says_why_it_is_refused(golden: Path) -> None:
    """It is the file that people download first."""
    path = golden / PRETRAINED / "pretrain.pth"
    with pytest.raises(CheckpointError, match=r"has no NLVR2 head(?s:.)*Fine-tune it on NLVR2 first"):
        checkpoint.load(path, head_width=16)
    assert checkpoint.inspect(path, head_width=16).task == "pretraining"


@pytest.fixture(scope="module")
def started(golden: Path) -> Recognised:
    """The golden pre-trained file as the start of a fine-tune at 96 instead of 64 pixels."""
    found = checkpoint.recognise(golden / PRETRAINED / "pretrain.pth", Told(head_width=16, image_size=96))
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
    told = json.loads((golden / PRETRAINED / "info.json").read_text())
    absent = checkpoint.compare(Path("pretrain.pth"), _without_fresh(started))
    assert sorted(absent.missing) == told["missing_keys"]
    assert (absent.unexpected, absent.reshaped) == ([], {})
    pretrained = read(golden / PRETRAINED / "pretrain.pth").weights
    twinned = {key for key in pretrained if key.startswith("text_encoder.")
               and (".crossattention.self." in key or ".crossattention.output.dense." in key)}  # fmt: skip
    unused = {key for keys in started.dropped.values() for key in keys} - {"text_encoder.embeddings.position_ids"}
    assert unused == (set(told["unexpected_keys"]) & set(pretrained)) - twinned


def _without_fresh(found: Recognised) -> Recognised:
    return Recognised(found.format, found.task, found.config, found.weights)


def test_a_fine_tune_has_the_originals_logits(
    golden: Path, started: Recognised, judge: Callable[..., dict[str, Tensor]]
) -> None:
    """With the original's random head and merge layer put in place of ours."""
    model = checkpoint.build(started)
    new = read(golden / PRETRAINED / "after_load_new_values.pth").weights
    model.load_state_dict({salesforce_blip.to_transformers(key): value for key, value in new.items()}, strict=False)
    answers = judge(model, PRETRAINED)
    torch.testing.assert_close(answers["ours"], answers["original"], rtol=0, atol=1e-4)


def test_the_twins_of_a_cross_attention_are_apart(started: Recognised) -> None:
    """In one storage they would stay equal however long the fine-tune."""
    model = checkpoint.build(started)
    twins = model.text_encoder.encoder.layer[0].crossattention
    with torch.no_grad():
        twins.self0.key.weight.add_(1)
    assert not torch.equal(twins.self0.key.weight, twins.self1.key.weight)
    assert not torch.equal(
        twins.self0.key.weight, started.weights["text_encoder.encoder.layer.0.crossattention.self0.key.weight"]
    )


def test_fresh_parts_have_values(started: Recognised) -> None:
    """They are built on the meta device, where a forgotten parameter holds whatever was in memory."""
    model = checkpoint.build(started)
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
    dropped = formats.recognise(inventory("blip_retrieval_base"), Told()).dropped
    assert {"image_queue", "text_queue", "idx_queue", "ptr_queue"} == set(dropped["queues of the contrastive loss"])
    assert dropped["temperature of the contrastive loss"] == ["temp"]
    assert "vision_proj_m.weight" in dropped["momentum copies"]


def test_names_return_to_the_originals(inventory: Callable[[str], Source]) -> None:
    """examples/blip.pt is written with these names, for the original's loader."""
    keys = inventory("blip_nlvr_base").weights
    ours = {salesforce_blip.to_transformers(key): value for key, value in keys.items()}
    assert salesforce_blip.to_original(ours).keys() == keys.keys()


def test_heads_that_cannot_be_told_are_asked_for(golden: Path) -> None:
    """48 is no multiple of 64; a guess would load, and answer nonsense."""
    with pytest.raises(CheckpointError, match=r"width 48 is no multiple of 64(?s:.)*--head-width"):
        checkpoint.load(golden / "blip_nlvr_a/checkpoint.pth")


def test_a_structurally_pruned_blip_is_refused(inventory: Callable[[str], Source]) -> None:
    """UPop's files have the same names and smaller matrices."""
    source = inventory("blip_nlvr_base")
    key = "visual_encoder.blocks.0.attn.qkv.weight"
    pruned = Source(source.path, "pickle", {**source.weights, key: torch.empty(1152, 768, device="meta")})
    refusal = formats.recognise(pruned, Told()).refusal
    assert refusal is not None
    assert "1152 rows, not 2304" in refusal


def test_an_incomplete_file_names_what_its_sizes_need(inventory: Callable[[str], Source]) -> None:
    """A KeyError would say neither which file nor what to do."""
    source = inventory("blip_nlvr_base")
    weights = {key: value for key, value in source.weights.items() if "word_embeddings" not in key}
    with pytest.raises(CheckpointError, match=r"without the tensor .*word_embeddings"):
        formats.recognise(Source(source.path, "pickle", weights), Told())


def test_an_image_size_off_the_patch_grid_is_refused(golden: Path) -> None:
    """100 pixels are six and a quarter patches of 16."""
    with pytest.raises(UsageError, match="100 is no multiple of the patch size 16"):
        checkpoint.inspect(golden / "blip_nlvr_a/checkpoint.pth", head_width=16, image_size=100)
