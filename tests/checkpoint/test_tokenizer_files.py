"""Files of a tokenizer with impossible values are an error that names them, and none is passed over in silence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.training.vocabularies import bert_tokenizer
from madtp_cli.checkpoint import processors
from madtp_cli.checkpoint.tokenizer_files import CONFIG, FILES, forget_lengths
from madtp_cli.errors import CheckpointError
from madtp_cli.models.blip.towers import MadtpBlipConfig
from tests.checkpoint.test_any_file import JSON

TOKENIZER = "tokenizer.json"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    bert_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "tokenizer"))


def _find(source: Path, given: Path | None = None) -> Any:
    config = MadtpBlipConfig(text_config={"vocab_size": len(bert_tokenizer()), "max_position_embeddings": 48})
    return processors.find_tokenizer(source, given, config)


def _change(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_the_tokenizer_that_the_tests_change_is_good(folder: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    assert _find(folder).model_max_length == 48


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("model_max_length", value) for value in ("512", -1, 0, 2, 4.5, float("nan"), True, [48])),
        ("padding_side", "left"),
        ("truncation_side", "left"),
        ("do_lower_case", "no"),
        ("tokenizer_class", 3),
        ("pad_token", 7),
        ("unk_token", ""),
        ("cls_token", {"a": 1}),
        ("added_tokens_decoder", {"x": {"content": "[X]"}}),
        ("added_tokens_decoder", [1]),
    ],
)
def test_an_impossible_setting_is_named(folder: Path, field: str, value: object) -> None:
    """Transformers reads such files without an error, or fails somewhere else."""
    _change(folder / CONFIG, lambda content: content.update({field: value}))
    with pytest.raises(CheckpointError, match=rf"{CONFIG} is invalid: {field} is "):
        _find(folder)


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        (CONFIG, lambda content: content.update(pad_token=None), "has no padding token"),
        (CONFIG, lambda content: content.update(cls_token=None), "cls_token|does not"),
        (
            TOKENIZER,
            lambda content: content["model"]["vocab"].update(dog=999_999),
            "153 word pieces, but",
        ),
        (
            TOKENIZER,
            lambda content: content["added_tokens"][-1].update(id=999),
            r"'\[ENC\]' the number \d+, but its tokenizer.json states 999",
        ),
    ],
)
def test_a_tokenizer_that_does_not_serve_the_checkpoint_is_refused(
    folder: Path, file: str, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    """It would end as a bug of madtp, or give texts without their first token."""
    _change(folder / file, change)
    with pytest.raises(CheckpointError, match=named):
        _find(folder)


@pytest.mark.parametrize("file", [CONFIG, TOKENIZER, "special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "[]", "{", "\udcff"])
def test_a_file_that_is_no_json_object_is_named(folder: Path, file: str, content: str) -> None:
    """Deep nesting included, at which Python's parser gives up."""
    (folder / file).write_text(content, errors="surrogateescape")
    with pytest.raises(CheckpointError, match=file):
        _find(folder)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_a_file_that_is_no_regular_file_is_named(folder: Path, file: str, make: Callable[[Path], None]) -> None:
    """Transformers passes over a pipe, and the result is another tokenizer."""
    (folder / file).unlink(missing_ok=True)
    make(folder / file)
    with pytest.raises(CheckpointError, match=file):
        _find(folder)


def test_a_broken_tokenizer_beside_a_checkpoint_is_not_passed_over(folder: Path) -> None:
    """Another one further away may have the same size and other words."""
    checkpoint = folder.parent / "blip.pt"
    assert _find(checkpoint) is not None
    shutil.copytree(folder, folder.parent / "blip-tokenizer")
    (folder.parent / "blip-tokenizer" / TOKENIZER).write_text("{")
    with pytest.raises(CheckpointError, match=r"blip-tokenizer.*not valid JSON"):
        _find(checkpoint)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON, field=st.sampled_from(["model_max_length", "pad_token", "unk_token", "added_tokens_decoder", "x"]))
def test_any_setting_ends_in_a_tokenizer_or_a_documented_error(folder: Path, value: Any, field: str) -> None:
    """Whatever stands in the file."""
    before = (folder / CONFIG).read_text()
    _change(folder / CONFIG, lambda content: content.update({field: value}))
    with contextlib.suppress(CheckpointError):
        _find(folder)
    (folder / CONFIG).write_text(before)


def test_a_length_limit_of_a_call_is_not_saved(folder: Path) -> None:
    """Otherwise the processor of a compressed folder warns its users about a limit that they did not set."""
    tokenizer = _find(folder)
    tokenizer(["a b c d"], truncation=True, padding=True, max_length=4)
    forget_lengths(tokenizer)
    tokenizer.save_pretrained(folder / "saved")
    saved = json.loads((folder / "saved" / TOKENIZER).read_text())
    assert (saved["truncation"], saved["padding"]) == (None, None)
