"""Scenes written to a folder are read back as a user's data are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from madtp_cli import data
from madtp_cli.errors import OutputError, UsageError
from madtp_cli.scenes import generator, splits
from madtp_cli.scenes.generator import Scene
from madtp_cli.scenes.writing import write_scenes

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


@pytest.fixture(scope="module", params=[("vqa", None), ("caption", None), ("retrieval", 5), ("retrieval", 1)])
def other(request, tmp_path_factory):
    """A folder of another task, the task and its number of captions."""
    task, captions = request.param
    folder = tmp_path_factory.mktemp("out") / task
    return folder, task, captions, write_scenes(folder, task, {"train": 6, "val": 3, "test": 4}, captions=captions)


def test_other_tasks_are_read_back_as_drawn(other):
    """Words, references, order and every pixel; only the names of rows are the reader's."""
    folder, task, captions, _ = other
    found, drawn = data.read(folder, task), splits.read(task, captions=captions)
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 6, "val": 3, "test": 4}
    assert found.notes == []
    for split, rows in found.splits.items():
        for row, origin in zip(rows, drawn.split(split)[: len(rows)], strict=True):
            assert (row.text, row.label, row.references) == (origin.text, origin.label, origin.references)
            ((path,), (scene,)) = row.images, origin.images
            assert isinstance(path, Path)
            assert isinstance(scene, Scene)
            np.testing.assert_array_equal(np.asarray(Image.open(path)), scene.render())


def test_other_annotations_are_exactly_blips(other):
    """VQA: one record a question; captions: one record each in train, one per image elsewhere."""
    folder, task, captions, _ = other
    stem = "vqa" if task == "vqa" else "coco_karpathy"
    train, val = (json.loads((folder / f"annotation/{stem}_{split}.json").read_text()) for split in ("train", "val"))
    if task == "vqa":
        assert all(row.keys() == {"image", "question", "question_id", "answer", "dataset"} for row in (*train, *val))
        assert [len(row["answer"]) for row in (*train, *val)] == [10] * 9
        assert json.loads((folder / "annotation/answer_list.json").read_text()) == generator.answers()
    else:
        number = captions or 5
        assert [len(row["caption"]) for row in val] == [number] * 3
        assert all(row.keys() == {"image", "caption"} for row in val)
        assert all(row.keys() == {"image", "image_id", "caption"} for row in train)
        assert [row["image_id"] for row in train] == [f"train_{i:06}" for i in range(6) for _ in range(number)]


def test_the_summary_fits_the_task(other):
    """Nothing is said of the balance of captions, which have no answer."""
    _, task, captions, summary = other
    test = summary.splits["test"]
    assert (summary.task, test.rows, test.true_percent) == (task, 4, None)
    if task == "vqa":
        assert test.texts == 4
        assert test.commonest_percent in (25, 50, 75, 100)
        assert sum(rows for rows, _ in test.kinds.values()) == summary.text_only["all"].samples == 4
    else:
        assert (test.texts, test.commonest_percent, test.kinds) == (4 * (captions or 5), None, {})
        assert summary.text_only == {}


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
        ("chess", {"test": 1}, "no data for task 'chess'; they have nlvr2, vqa"),
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
