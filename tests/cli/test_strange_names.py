"""What comes from files and libraries does nothing to the terminal: names, texts, warnings."""

from __future__ import annotations

import json
import os
import re
import warnings

import pytest
import torch
from transformers.utils import logging

from madtp_cli.cli.quiet import quiet_libraries
from madtp_cli.errors import LONGEST_WORD, UsageError
from madtp_cli.reporting.plain_text import encodable, safe_json
from tests.data.conftest import write_image

#: Characters that a terminal executes, or that reverse the order of a text.
EXECUTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("name", ["\x1b[2Jred.pt", "a\u202etp.x", os.fsdecode(b"\xff.pt")])
def test_names_of_checkpoints_are_escaped(madtp, tmp_path, name):
    """On stdout, in the table of `inspect`, and on stderr."""
    torch.save({"model": {"visual_encoder.\x1b[31mx": torch.zeros(1)}}, tmp_path / "plain.pt")
    (tmp_path / "plain.pt").rename(tmp_path / name)
    for command in (["inspect"], ["inspect", "--json"], ["eval"]):
        done = madtp(*command, tmp_path / name)
        assert done.exit_code in (0, 3), done.stderr
        assert not EXECUTED.search(done.stdout + done.stderr)


def test_names_and_texts_of_data_are_escaped_in_json(madtp, tmp_path):
    """The document holds the same text: its parser undoes the escapes."""
    write_image(tmp_path / "0.png")
    text = "a \x9b2J dog \u202e \x1b[31m"
    (tmp_path / "test.jsonl").write_text(json.dumps({"image": "0.png", "caption": text}))
    done = madtp("data", tmp_path, "--json")
    assert done.exit_code == 0, done.stderr
    assert not EXECUTED.search(done.stdout)
    assert json.loads(done.stdout)["tasks"]["caption"]["samples"][0]["text"] == text


def test_json_stays_the_same_document():
    """Letters of other scripts are not escaped."""
    document = json.dumps({"a\x85": "é \u2028 \u202e"}, ensure_ascii=False)
    assert json.loads(safe_json(document)) == json.loads(document)
    assert "é" in safe_json(document)
    assert encodable(("a\udcff",)) == ("a\\udcff",)


def test_a_value_of_thousands_of_characters_is_cut():
    """The message stays readable; its beginning and its end are there."""
    message = str(UsageError(f"There is no file {'x' * 5000}.\nCheck it."))
    assert len(message) < LONGEST_WORD + 40
    assert message.endswith("x.\nCheck it.")


def test_warnings_of_libraries_are_not_printed(monkeypatch, recwarn):
    """Unless the user asks for them."""
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    before = logging.get_verbosity()
    monkeypatch.setattr("sys.warnoptions", [])
    try:
        with quiet_libraries():
            warnings.warn("from a library", stacklevel=1)
            assert logging.get_verbosity() == logging.ERROR
        assert not recwarn.list
        monkeypatch.setattr("sys.warnoptions", ["default"])
        with quiet_libraries(), pytest.warns(UserWarning, match="from a library"):
            warnings.warn("from a library", stacklevel=1)
    finally:
        logging.set_verbosity(before)
