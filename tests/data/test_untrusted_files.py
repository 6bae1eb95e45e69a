"""Files of strangers: only regular files are opened, sizes are bounded, and nothing in them reaches the terminal."""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madtp_cli import data
from madtp_cli.cli.console import Terminal
from madtp_cli.cli.formatting import line
from madtp_cli.cli.results.data import show
from madtp_cli.config import limits
from madtp_cli.config.sources import resolve
from madtp_cli.data.validate import validate
from madtp_cli.errors import DataError, UsageError, printable
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import DataReport, ImagesPart, SamplePart, TaskPart
from tests.data.conftest import write_image
from tests.data.readers.test_webdataset import captioned, encoded, write_shard

SCHEMAS = ("statements", "questions", "captions")


def refused(path: Path, schema: str = "captions") -> str:
    """Return the message about data that cannot be used."""
    with pytest.raises(DataError) as caught:
        data.read(path, schema)
    assert 2 <= len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


@pytest.fixture
def special(tmp_path) -> dict[str, Path]:
    """Return special files by what they are called in messages."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nowhere")
    return {
        "a pipe": tmp_path / "pipe",
        "a device": tmp_path / "zero",
        "a link that leads nowhere": tmp_path / "loop",
        "a link to a file that does not exist": tmp_path / "broken",
    }


@pytest.mark.parametrize("name", ["coco_test.json", "test.jsonl", "test.csv", "test.token", "test.tar", "test.parquet"])
def test_only_regular_files_are_opened(tmp_path, special, name):
    """Reading a pipe or /dev/zero would never end."""
    for kind, file in special.items():
        folder = tmp_path / kind.replace(" ", "-")
        folder.mkdir()
        file.rename(folder / name)
        if kind == "a link that leads nowhere":
            (folder / name).unlink()
            (folder / name).symlink_to(name)
        for path in (folder, folder / name):
            assert f"{name} is {kind}" in refused(path)


@pytest.mark.parametrize("name", ["coco_test.json", "test.csv", "test.tar", "test.parquet", "test.token"])
def test_a_folder_with_the_name_of_a_file_is_passed_over(tmp_path, name):
    """It holds no annotations, and the other files still count."""
    (tmp_path / name).mkdir()
    assert "holds no annotations" in refused(tmp_path)
    assert "holds no annotations" in refused(tmp_path / name)
    write_image(tmp_path / "0.png")
    (tmp_path / "val.jsonl").write_text('{"image": "0.png", "caption": "a"}')
    assert list(data.read(tmp_path, "captions").splits) == ["val"]


def test_images_may_be_links_that_lead_to_each_other(tmp_path):
    """Such an image is missing; it is no bug in madtp."""
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("a.png", "loop/a.png", f"{'x' * 5_000}/a.png"):
        (tmp_path / "test.jsonl").write_text(json.dumps({"image": name, "caption": "a"}))
        assert "1 of 1 images" in refused(tmp_path)


@pytest.mark.parametrize("path", ["x" * 5_000, "a\0b"])
def test_a_path_that_cannot_exist_is_a_missing_path(path):
    """The operating system raises other errors for it."""
    with pytest.raises(DataError):
        data.read(Path(path), "captions")


def test_a_huge_text_in_an_archive_is_not_read(tmp_path):
    """Twenty gigabytes cost nothing in a sparse file, and all memory when they are read."""
    member = tarfile.TarInfo("0.txt")
    member.size = 20 * 2**30
    with (tmp_path / "test.tar").open("wb") as stream:
        image = tarfile.TarInfo("0.png")
        image.size = len(encoded(1))
        stream.write(image.tobuf() + encoded(1).ljust(-(-image.size // 512) * 512, b"\0") + member.tobuf())
        stream.truncate(stream.tell() + member.size + 1024)
    assert "0.txt in" in refused(tmp_path)
    assert "MADTP_LIMIT_TEXT_BYTES is 16,777,216" in refused(tmp_path)


def test_a_member_that_claims_more_than_its_archive_has_is_refused(tmp_path):
    """Python would first reserve the memory for it."""
    member = tarfile.TarInfo("0.png")
    member.size = 20 * 2**30
    (tmp_path / "test.tar").write_bytes(member.tobuf() + bytes(1024))
    assert "not a complete" in refused(tmp_path / "test.tar")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar.bz2", ".tar.zst"])
def test_compressed_shards_are_refused_by_name(tmp_path, suffix):
    """Also beside shards that can be read, whose samples would be a part of the data only."""
    write_shard(tmp_path / "test-0.tar", captioned(0, 2))
    (tmp_path / f"test-1{suffix}").write_bytes(b"\x1f\x8b anything")
    assert f"test-1{suffix} is compressed" in refused(tmp_path)
    assert f"test-1{suffix} is compressed" in refused(tmp_path / f"test-1{suffix}")


@pytest.mark.parametrize(("name", "limit"), [("my_test.json", "ANNOTATION_BYTES"), ("test/0.txt", "TEXT_BYTES")])
def test_a_huge_annotation_file_is_refused_until_the_user_raises_the_limit(tmp_path, monkeypatch, name, limit):
    """The message gives the value that admits the file."""
    write_image(tmp_path / "test/0.png")
    text = "a dog" if name.endswith("txt") else json.dumps([{"image": "test/0.png", "caption": "a dog"}])
    (tmp_path / name).write_text(text)
    monkeypatch.setitem(limits.DEFAULTS, limit, 3)
    message = refused(tmp_path)
    assert f"set MADTP_LIMIT_{limit}={len(text)}" in message
    monkeypatch.setenv(f"MADTP_LIMIT_{limit}", str(len(text)))
    assert len(data.read(tmp_path, "captions").split("test")) == 1


def test_a_limit_is_no_setting_and_a_misspelt_limit_is_refused():
    """A variable that is ignored would leave the limit as it is, without a message."""
    for name in limits.DEFAULTS:
        resolve({"gflops_budget": "0.2"}, None, {limits.variable(name): "5"})
    with pytest.raises(UsageError, match="MADTP_LIMIT_IMAGES is not a setting"):
        resolve({"gflops_budget": "0.2"}, None, {"MADTP_LIMIT_IMAGES": "5"})


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "\u202e", "\x9b31m", "\r", "\ud800", "\x7f"])
def test_nothing_from_a_file_changes_the_terminal(text):
    """Names and texts are escaped in errors and in tables."""
    for printed in (str(DataError(f"a{text}b")), line(f"a{text}b"), printable(f"a{text}b")):
        assert text not in printed
        assert printed.isprintable()
        printed.encode("utf-8")


def test_the_terminal_escapes_notes_errors_and_results(capsys):
    """Notes name files, and results print captions."""
    terminal, evil = Terminal(), "\x1b[2J"
    terminal.message(f"{evil}_test.csv not used")
    terminal.fail(str(DataError(f"{evil}.csv: wrong")))
    sample = SamplePart(split="test", identifier=evil, images=[evil], text=evil, label=None, references=[evil, "b"])
    part = TaskPart(layout="table", splits={}, samples=[sample])
    images = ImagesPart(images=1, missing=1, checked=0, unreadable=0, missing_first=[evil], unreadable_first=[])
    report = DataReport(path=evil, tasks={"caption": part}, images={"test": images}, duplicates=[], notes=[evil])
    show(report, terminal.out)
    printed = capsys.readouterr()
    assert "\x1b[2J" not in printed.out + printed.err
    assert printed.out.count("\\x1b[2J") >= 6


def test_control_characters_in_names_and_splits_are_escaped(tmp_path):
    """A file name, a column, a split and an image name come from a stranger's archive."""
    name = "\x1b[31m_test.csv"
    (tmp_path / name).write_text("image,caption,\x1b[2J,split\n\x1b[1m.png,a,b,\x1b[5m\n")
    assert "\x1b" not in refused(tmp_path / name)
    (tmp_path / name).write_text("image,caption\n\x1b[1m.png,a\n")
    assert "\x1b" not in refused(tmp_path / name)


def test_file_names_that_are_no_text_can_be_reported(tmp_path):
    """Linux allows any bytes in a name; JSON and the terminal do not."""
    raw = os.fsencode(tmp_path) + b"/\xff_test"
    os.mkdir(raw)
    folder = Path(os.fsdecode(raw))
    write_image(folder / "0.png")
    (folder / "test.csv").write_text("image,caption\n0.png,\x1b[2Ja\n")
    report = validate(folder, {"caption": "captions"}, ProgressReporter())
    assert "\\udcff" in json.loads(report.model_dump_json())["path"]
    (folder / "test.csv").write_text("image,caption\n1.png,a\n")
    refused(folder).encode("utf-8")


@pytest.mark.parametrize("file", ["my_test.json", "test.jsonl"])
def test_half_of_a_character_is_refused_with_its_row(tmp_path, file):
    """No tokenizer can encode it. A pair of halves is a character."""
    write_image(tmp_path / "0.png")
    rows = [{"image": "0.png", "caption": text} for text in ("\U0001f600", "a \ud83d")]

    def write(count: int) -> None:
        lines = [json.dumps(row) for row in rows[:count]]
        (tmp_path / file).write_text("\n".join(lines) if file.endswith("l") else f"[{', '.join(lines)}]")

    write(2)
    assert f"{file}, row 2: a text has half of a character, \\ud83d" in refused(tmp_path)
    write(1)
    assert data.read(tmp_path, "captions").split("test")[0].text == "\U0001f600"
    write_shard(tmp_path / "shard/test.tar", {"0.png": encoded(1), "0.json": '{"caption": "a \\ud83d"}'})
    assert "has half of a character" in refused(tmp_path / "shard/test.tar")


#: What a stranger's JSON may hold, with the names that readers look for.
_NAMES = st.sampled_from(
    [
        *("image", "images", "caption", "sentence", "sentences", "label", "identifier", "question", "questions"),
        *("answer", "answers", "annotations", "question_id", "image_id", "split", "filename", "file_name", "weight"),
    ]
)
_TEXTS = st.sampled_from(["0.png", "train", "dev-1-0-1", "True", "", "../0.png", "\\", "a\0", "\ud800", "\x1b[2J", "7"])
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS | st.text(max_size=5)
_VALUES = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=6))


def only_data_errors(file: Path, content: bytes) -> None:
    """Read a file with every schema; anything but a data set, a DataError or a UsageError fails."""
    file.write_bytes(content)
    for schema in SCHEMAS:
        for path in (file.parent, file):
            with contextlib.suppress(DataError, UsageError):
                data.read(path, schema)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.dictionaries(_NAMES, _VALUES, max_size=6), max_size=3), whole=_VALUES)
def test_json_of_any_content_is_read_or_a_data_error(rows, whole):
    """No content of an annotation file is a bug in madtp."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(folder / "0.png")
        for content in (rows, whole):
            only_data_errors(folder / "vqa_test.json", json.dumps(content).encode())
        only_data_errors(folder / "vqa_test.json", "\n".join(map(json.dumps, rows)).encode())


@settings(max_examples=60, deadline=None)
@given(
    cells=st.lists(st.lists(_TEXTS | _NAMES | st.text(max_size=4), max_size=4), max_size=5),
    delimiter=st.sampled_from([",", "\t", "|", ";"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-16-le", "latin-1"]),
)
def test_tables_of_any_content_are_read_or_a_data_error(cells, delimiter, encoding):
    """Quotes, controls, NUL and bytes that are no text are in real tables."""
    text = "".join(delimiter.join(row) + "\n" for row in [["image", "caption"], *cells])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(folder / "0.png")
        only_data_errors(folder / "test.csv", text.encode(encoding, "replace"))


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=600), name=st.sampled_from(["test.tar", "test.token", "test.parquet", "test.csv"]))
def test_bytes_of_any_content_are_read_or_a_data_error(content, name):
    """An interrupted download, or a file with a wrong name."""
    starts: dict[str, Any] = {"test.parquet": b"PAR1", "test.token": b"0.png#0\t"}
    with tempfile.TemporaryDirectory() as folder:
        only_data_errors(Path(folder) / name, starts.get(name, b"") + content)
