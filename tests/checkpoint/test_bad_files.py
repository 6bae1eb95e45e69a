"""Bad checkpoints: every one ends in an error of this package, and none is used in silence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from madtp_cli.checkpoint import loading, tensors
from madtp_cli.checkpoint.config_schema import require_valid
from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.checkpoint.inspection import inspect
from madtp_cli.checkpoint.reading import read
from madtp_cli.config import head_widths
from madtp_cli.errors import CheckpointError, UsageError
from tests.paths import GOLDEN

CONFIG: dict[str, Any] = {
    "model_type": "madtp_clip",
    "task": "retrieval",
    "vision_config": {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2},
    "text_config": {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2},
}
PRUNED = {"method": "madtp", "threshold_scale": 1.0, "scales": {"vision": [1.0, 0.0]}}


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """The tensors of a small CLIP of OpenAI's precision, so that its activation is known."""
    return dict(read(GOLDEN / "clip_a/archive.pt").weights)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda raw: {"state_dict": {f"model.{key}": value for key, value in raw.items()}, "epoch": 3},
        lambda raw: {"model_state_dict": raw, "optimizer_state_dict": {}, "loss": 0.1},
        lambda raw: {"module": raw, "global_steps": 10},
        lambda raw: {"net": raw},
        lambda raw: {"model_ema": raw},
        lambda raw: {"model": raw, "best": np.float64(0.5)},
        lambda raw: {"model": raw, "output_dir": PosixPath("run")},
    ],
)
def test_known_wrappers_are_taken_off(
    weights: dict[str, Tensor], wrap: Callable[[dict[str, Tensor]], Any], tmp_path: Path
) -> None:
    """Lightning, tutorials, DeepSpeed and others save the same weights under different keys."""
    torch.save(wrap(weights), tmp_path / "clip.pt")
    found = inspect(tmp_path / "clip.pt")
    assert (found.refusal, found.missing, found.unexpected) == (None, [], [])


def test_an_unknown_wrapper_lists_its_keys(tmp_path: Path) -> None:
    """The user sees what the file has."""
    torch.save({"student\x1b": {"a": torch.zeros(1)}, "step": 3}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"'student\\x1b', 'step'"):
        read(tmp_path / "x.pt")


@pytest.mark.parametrize("inside", [False, True])
def test_raw_and_averaged_weights_can_be_chosen(weights: dict[str, Tensor], inside: bool, tmp_path: Path) -> None:
    """Both are named; the raw ones are the default. The averages are twice as large here."""
    average = {key: value * 2 for key, value in weights.items()}
    content: dict[str, Any] = {"model": weights, "model_ema": average}
    if inside:
        content = {f"{name}.{key}": value for name, part in content.items() for key, value in part.items()}
    torch.save(content, tmp_path / "clip.pt")
    found = {
        choice: loading.recognise(tmp_path / "clip.pt", CheckpointOverrides(weights=choice))
        for choice in (None, "raw", "ema")
    }
    scale = {choice: float(recognised.weights["logit_scale"]) for choice, recognised in found.items()}
    assert (scale["raw"], scale["ema"]) == pytest.approx((scale[None], 2 * scale[None]))
    assert any("model_ema" in note and "raw weights" in note for note in found[None].notes)


def test_averaged_weights_that_are_not_there_cannot_be_chosen(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """The user believes that the file has them."""
    torch.save(weights, tmp_path / "clip.pt")
    with pytest.raises(UsageError, match="no averaged weights"):
        loading.recognise(tmp_path / "clip.pt", CheckpointOverrides(weights="ema"))


@pytest.mark.parametrize(
    "key",
    [
        "visual.transformer.resblocks.0.ls_1.gamma",
        "transformer.resblocks.0.attn.lora_A",
        "text_projection.bias",
        "positional_embedding_res",
    ],
)
def test_tensors_without_a_place_are_a_refusal(weights: dict[str, Tensor], key: str, tmp_path: Path) -> None:
    """Without them the result is another model."""
    torch.save({**weights, key: torch.zeros(3)}, tmp_path / "clip.pt")
    assert "no place for" in (inspect(tmp_path / "clip.pt").refusal or "")


def test_a_file_that_does_not_show_its_activation_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """Float32 files of OpenAI's names are most often OpenCLIP's; both choices are named."""
    weights.pop("input_resolution")
    torch.save({key: value.float() for key, value in weights.items()}, tmp_path / "clip.pt")
    refusal = inspect(tmp_path / "clip.pt").refusal or ""
    assert "--activation quick_gelu" in refusal
    assert "--activation gelu" in refusal
    assert inspect(tmp_path / "clip.pt", activation="gelu").refusal is None


@pytest.mark.parametrize("value", [torch.int8, torch.int32, torch.bool, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_refused(
    weights: dict[str, Tensor], value: torch.dtype, tmp_path: Path
) -> None:
    """They would be converted in silence."""
    weights["ln_final.weight"] = weights["ln_final.weight"].to(value)
    torch.save(weights, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=r"final_layer_norm|ln_final"):
        loading.load(tmp_path / "clip.pt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("visual.positional_embedding", torch.zeros(17 * 128)),
        ("token_embedding.weight", torch.tensor(1.0)),
        ("visual.conv1.weight", torch.zeros(128, 3, 0, 0)),
        ("visual.transformer.resblocks.x.ln_1.weight", torch.zeros(3)),
        ("visual.transformer.resblocks.1000000000.ln_1.weight", torch.zeros(3)),
        ("visual.transformer.resblocks.999.ln_1.weight", torch.zeros(3)),
        ("ln_final.weight", torch.zeros(1).expand(10**7)),
        ("ln_final.weight", torch.eye(3).to_sparse()),
    ],
)
def test_impossible_tensors_are_refused(weights: dict[str, Tensor], key: str, value: Tensor, tmp_path: Path) -> None:
    """Sizes are read from them, or they would need more memory than the file has bytes."""
    torch.save({**weights, key: value}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError):
        inspect(tmp_path / "clip.pt")


def test_a_tensor_without_values_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """A model that was built on the meta device can be saved."""
    torch.save({**weights, "ln_final.weight": weights["ln_final.weight"].to("meta")}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=r"ln_final\.weight has no values"):
        read(tmp_path / "clip.pt")


def test_a_pickle_that_contains_itself_ends(tmp_path: Path) -> None:
    """The wrappers are taken off one after the other."""
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        read(tmp_path / "clip.pt")


ONE = torch.ones(1)
ALBEF = {"visual_encoder.pos_embed": ONE, "text_encoder.encoder.layer.6.crossattention.x": ONE}
CLIPA = {"visual.conv1.weight": ONE, "token_embedding.weight": ONE, "ln_final.weight": ONE}


@pytest.mark.parametrize(
    ("tensors_of_file", "named"),
    [
        (ALBEF, "an ALBEF"),
        ({"visual_encoder.pos_embed": ONE, "text_encoder.bert.embeddings.x": ONE}, "an ALBEF"),
        (CLIPA, "a CLIPA"),
    ],
)
def test_a_similar_model_is_refused_by_name(tensors_of_file: dict[str, Tensor], named: str, tmp_path: Path) -> None:
    """It is not incomplete, and downloading it again does not help."""
    torch.save(tensors_of_file, tmp_path / "model.pt")
    refusal = inspect(tmp_path / "model.pt").refusal or ""
    assert named in refusal
    assert "\nGive a" in refusal


def test_a_weight_that_is_nan_is_named(tmp_path: Path) -> None:
    """The model would answer at random, and pruned and dense model would agree."""
    with pytest.raises(CheckpointError, match="the tensor b has 1 values"):
        tensors.require_finite(tmp_path, {"a": torch.zeros(2), "b": torch.tensor([1.0, float("nan")])})


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path), lambda p: os.symlink(p, p)])
def test_only_regular_files_are_opened(make: Callable[[Path], None], tmp_path: Path) -> None:
    """A pipe or a device would be read without end."""
    make(tmp_path / "clip.pt")
    with pytest.raises(CheckpointError):
        read(tmp_path / "clip.pt")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "[]", "3", "\ud800"])
def test_a_config_that_is_no_config_is_refused(content: str, tmp_path: Path) -> None:
    """The exit code is 3 and not that of a bug."""
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError):
        inspect(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vision_config": {"num_attention_heads": 0}}, "num_attention_heads"),
        ({"vision_config": {"patch_size": 0}}, "patch_size"),
        ({"vision_config": {"num_hidden_layers": -1}}, "num_hidden_layers"),
        ({"vision_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers"),
        ({"text_config": {"hidden_size": "wide"}}, "hidden_size"),
        ({"text_config": {"layer_norm_eps": float("nan")}}, "layer_norm_eps"),
        ({"madtp": {**PRUNED, "threshold_scale": float("nan")}}, "threshold_scale"),
        ({"madtp": {**PRUNED, "threshold_scale": -1.0}}, "threshold_scale"),
        ({"madtp": {**PRUNED, "scales": {"vision": [1.0]}}}, "1 numbers for the 2 blocks"),
        ({"madtp": {**PRUNED, "scales": {"audio": [1.0, 1.0]}}}, "audio"),
        ({"madtp": {**PRUNED, "min_keep": -1}}, "min_keep"),
        ({"madtp": {**PRUNED, "method": "other"}}, "no such method"),
        ({"madtp": {**PRUNED, "parameters": {"temperature": 0}}}, "temperature"),
        ({"madtp": {**PRUNED, "parameters": {"temperature": float("nan")}}}, "temperature"),
        ({"madtp": {**PRUNED, "parameters": {"queries": -1}}}, "queries"),
        ({"madtp": {**PRUNED, "parameters": {"temperature": 10**400}}}, "temperature"),
        ({"madtp": {**PRUNED, "threshold_scale": "1"}}, "threshold_scale"),
        ({"match_token": "zzz"}, "match_token"),
        ({"prompt": 3}, "prompt"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_impossible_settings_are_refused_by_name(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    """They were accepted and evaluated, or ended as a bug of madtp."""
    require_valid({**CONFIG, "madtp": PRUNED}, tmp_path)
    with pytest.raises(CheckpointError, match=named):
        require_valid({**CONFIG, **change}, tmp_path)


@pytest.mark.parametrize("value", ["0", "x", "vision=0", "audio=3", "vision=1,vision=2", "", True, 10**9])
def test_an_impossible_head_width_is_refused(value: Any) -> None:
    """It is a wrong option."""
    with pytest.raises(UsageError):
        head_widths.parse(value)
