"""Whatever stands in a file of a checkpoint, the result is a checkpoint or a documented error."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from madtp_cli.checkpoint.image_settings import image_settings
from madtp_cli.checkpoint.inspection import inspect
from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError, UsageError
from tests.paths import GOLDEN

CONFIG: dict[str, Any] = {
    "model_type": "madtp_clip",
    "task": "retrieval",
    "vision_config": {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2},
    "text_config": {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2},
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON, field=st.sampled_from([*CONFIG, "madtp", "hidden_size", "num_hidden_layers", "patch_size"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_a_config_ends_in_a_documented_error(value: Any, field: str, tmp_path: Path) -> None:
    """Whatever stands in config.json, the result is an inspection or an error with an exit code."""
    content = {**CONFIG, field: value} if field in (*CONFIG, "madtp") else json.loads(json.dumps(CONFIG))
    if field not in content:
        content["vision_config"][field] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    if not (tmp_path / "model.safetensors").exists():
        shutil.copy(GOLDEN / "open_clip_a/open_clip_model.safetensors", tmp_path / "model.safetensors")
    with contextlib.suppress(CheckpointError, UsageError):
        inspect(tmp_path)


@given(value=JSON, field=st.sampled_from(["size", "crop_size", "resample", "image_std", "do_center_crop", "mode"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_image_setting_ends_in_a_documented_error(value: Any, field: str, tmp_path: Path) -> None:
    """The same for the file with image settings."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({field: value}))
    with contextlib.suppress(CheckpointError):
        image_settings(tmp_path)


STARTS = (b"", b"\x80\x02", b"PK\x03\x04", b"\x10" + b"\0" * 7 + b"{")


@given(content=st.binary(max_size=200), start=st.sampled_from(STARTS))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_end_in_a_documented_error(content: bytes, start: bytes, tmp_path: Path) -> None:
    """Headers of pickles, zip files and safetensors included."""
    (tmp_path / "clip.pt").write_bytes(start + content)
    with pytest.raises(CheckpointError):
        read(tmp_path / "clip.pt")


ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "C64", "Q4", ""]) | JSON,
        "shape": st.lists(st.integers(-2, 2**62), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 2**62), max_size=3) | JSON,
    },
)


@given(
    header=st.dictionaries(st.sampled_from(["ln_final.weight", "visual.conv1.weight", "x"]), ENTRY), body=st.binary()
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_of_safetensors_ends_in_a_documented_error(header: Any, body: bytes, tmp_path: Path) -> None:
    """A header can claim any size, any format and any place in the file."""
    text = json.dumps(header).encode()
    (tmp_path / "clip.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    with contextlib.suppress(CheckpointError):
        inspect(tmp_path / "clip.safetensors")
