"""Scenes written to a folder are read back as a user's NLVR2 is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from madtp_cli import data
from madtp_cli.data.scenes import Scene
from madtp_cli.data.writing import write_scenes
from madtp_cli.errors import OutputError, UsageError

SIZES = {"train": 30, "val": 5, "test": 20}


def contents(folder) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of scenes, what was said of it, and the progress that was told."""
    told = []
    folder = tmp_path_factory.mktemp("out") / "scenes"
    summary = write_scenes(folder, "nlvr2", SIZES, progress=lambda done, total: told.append((done, total)))
    return folder, summary, told


def test_what_is_read_back_is_what_was_drawn(written):
    """Sentence, label, order and every pixel, for all splits."""
    found, drawn = data.read(written[0], "nlvr2"), data.read(None, "nlvr2")
    assert {split: len(rows) for split, rows in found.splits.items()} == SIZES
    for split, rows in found.splits.items():
        for row, origin in zip(rows, drawn.split(split)[: len(rows)], strict=True):
            assert (row.text, row.label) == (origin.text, origin.label)
            for path, scene in zip(row.images, origin.images, strict=True):
                assert isinstance(path, Path)
                assert isinstance(scene, Scene)
                np.testing.assert_array_equal(np.asarray(Image.open(path)), scene.render())


def test_the_annotations_are_exactly_blips(written):
    """No field of ours: what reads BLIP's files reads these."""
    rows = json.loads((written[0] / "annotation/nlvr_dev.json").read_text())
    assert len(rows) == 5
    for row in rows:
        assert row.keys() == {"sentence", "label", "images"}
        assert row["label"] in ("True", "False")


def test_the_summary_counts_what_was_written(written):
    """Balance and text-only accuracy are printed from it."""
    _, summary, told = written
    assert {split: part.rows for split, part in summary.splits.items()} == SIZES
    test = summary.splits["test"]
    assert sum(rows for rows, _ in test.kinds.values()) == 20
    true = sum(rows * percent / 100 for rows, percent in test.kinds.values())
    assert test.true_percent == pytest.approx(100 * true / 20)
    assert summary.text_only["all"].samples == 20
    assert told == [(done, 55) for done in range(1, 56)]


def test_a_split_of_no_rows_is_not_written(tmp_path):
    """And without train or test there is no text-only accuracy to speak of."""
    summary = write_scenes(tmp_path / "scenes", "nlvr2", {"train": 0, "test": 2})
    assert sorted(path.name for path in (tmp_path / "scenes/annotation").iterdir()) == ["nlvr_test.json"]
    assert list(summary.splits) == ["test"]
    assert summary.text_only == {}


@pytest.mark.parametrize(
    ("task", "sizes", "words"),
    [
        ("vqa", {"test": 1}, "no data for task 'vqa'; they have nlvr2"),
        ("nlvr2", {}, "Nothing to write"),
        ("nlvr2", {"test": 0}, "Nothing to write"),
        ("nlvr2", {"test": -1, "train": 5}, "Nothing to write"),
        ("nlvr2", {"dev": 5}, "Nothing to write"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, task, sizes, words):
    """Before anything is made."""
    with pytest.raises(UsageError, match=words):
        write_scenes(tmp_path / "scenes", task, sizes)
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_kept_unless_told(tmp_path):
    """Then it is replaced whole, without a file of the old one."""
    write_scenes(tmp_path / "scenes", "nlvr2", {"test": 3})
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="exists and is not empty"):
        write_scenes(tmp_path / "scenes", "nlvr2", {"test": 1})
    assert contents(tmp_path) == before
    write_scenes(tmp_path / "scenes", "nlvr2", {"val": 1}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    assert len(contents(tmp_path)) == 3


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    """A mistyped folder and --overwrite must not cost anybody his files."""
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(OutputError, match=r"is not replaced: it also holds thesis\.tex"):
        write_scenes(tmp_path, "nlvr2", {"test": 1}, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


def test_an_empty_folder_and_a_new_path_are_both_fine(tmp_path):
    """`mkdir` first or not."""
    (tmp_path / "made").mkdir()
    for name in ("made", "a/b"):
        write_scenes(tmp_path / name, "nlvr2", {"test": 1})
        assert len(contents(tmp_path / name)) == 3


def test_an_interrupted_writing_leaves_no_trace(tmp_path):
    """Neither a half-written folder nor a hidden one; what was there before stays."""
    write_scenes(tmp_path / "scenes", "nlvr2", {"test": 1})
    before = contents(tmp_path)

    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "scenes", "nlvr2", {"test": 3}, overwrite=True, progress=interrupt)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path):
    """A file stands where a folder is needed."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file/scenes"):
        with pytest.raises(OutputError) as caught:
            write_scenes(place, "nlvr2", {"test": 1}, overwrite=True)
        assert len(str(caught.value).splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
