"""Scenes that are written to a folder can be read like the data of a user."""

from __future__ import annotations

import json

import numpy as np
import pytest

from madtp_cli import data, tasks
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import OutputError, UsageError
from madtp_cli.scenes import generator, splits
from madtp_cli.scenes.generator import Scene
from madtp_cli.scenes.writing import write_scenes

SIZES = {"train": 30, "val": 5, "test": 20}


def contents(folder) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of scenes, its summary, and the calls of the progress function."""
    calls = []
    folder = tmp_path_factory.mktemp("out") / "scenes"
    summary = write_scenes(folder, "nlvr2", SIZES, progress=lambda done, total: calls.append((done, total)))
    return folder, summary, calls


def test_the_written_data_are_read_back_unchanged(written):
    """Sentences, labels, order and every pixel are equal, for all splits."""
    found, generated = data.read(written[0], "statements"), splits.read("nlvr2")
    assert {split: len(rows) for split, rows in found.splits.items()} == SIZES
    for split, rows in found.splits.items():
        for row, origin in zip(rows, generated.split(split)[: len(rows)], strict=True):
            assert (row.text, row.label) == (origin.text, origin.label)
            for image, scene in zip(row.images, origin.images, strict=True):
                assert isinstance(image, ImageFile)
                assert isinstance(scene, Scene)
                np.testing.assert_array_equal(np.asarray(image.open()), scene.render())


def test_the_annotations_have_only_the_fields_of_blip(written):
    """Programs that read the files of BLIP can read these files."""
    rows = json.loads((written[0] / "annotation/nlvr_dev.json").read_text())
    assert len(rows) == 5
    for row in rows:
        assert row.keys() == {"sentence", "label", "images"}
        assert row["label"] in ("True", "False")


@pytest.fixture(
    scope="module", params=[("vqa", None), ("caption", None), ("retrieval", 5), ("retrieval", 1), ("embedding", None)]
)
def other(request, tmp_path_factory):
    """A folder of another task, the task and its number of captions."""
    task, captions = request.param
    folder = tmp_path_factory.mktemp("out") / task
    return folder, task, captions, write_scenes(folder, task, {"train": 6, "val": 3, "test": 4}, captions=captions)


def test_the_data_of_other_tasks_are_read_back_unchanged(other):
    """Texts, references, order and every pixel are equal; only the identifiers of rows come from the reader."""
    folder, task, captions, _ = other
    found, generated = data.read(folder, tasks.get(task).schema), splits.read(task, captions=captions)
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 6, "val": 3, "test": 4}
    assert found.notes == []
    for split, rows in found.splits.items():
        for row, origin in zip(rows, generated.split(split)[: len(rows)], strict=True):
            assert (row.text, row.label, row.references) == (origin.text, origin.label, origin.references)
            ((image,), (scene,)) = row.images, origin.images
            assert isinstance(image, ImageFile)
            assert isinstance(scene, Scene)
            np.testing.assert_array_equal(np.asarray(image.open()), scene.render())


def test_the_annotations_of_other_tasks_have_only_the_fields_of_blip(other):
    """VQA has one record per question; captions have one per caption in train, and one per image elsewhere."""
    folder, task, captions, _ = other
    if task == "embedding":
        assert [path.name for path in folder.iterdir()] == ["images"]
        return
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


def test_the_summary_depends_on_the_task(other):
    """Captions have no answers, so nothing is reported about their balance."""
    _, task, captions, summary = other
    test = summary.splits["test"]
    assert (summary.task, test.rows, test.true_percent) == (task, 4, None)
    if task == "vqa":
        assert test.texts == 4
        assert test.commonest_percent in (25, 50, 75, 100)
        assert sum(rows for rows, _ in test.kinds.values()) == summary.text_only["all"].samples == 4
    else:
        texts = 0 if task == "embedding" else 4 * (captions or 5)
        assert (test.texts, test.commonest_percent, test.kinds) == (texts, None, {})
        assert summary.text_only == {}


def test_the_summary_counts_the_rows(written):
    """The command line prints balance and text-only accuracy from it."""
    _, summary, calls = written
    assert {split: part.rows for split, part in summary.splits.items()} == SIZES
    test = summary.splits["test"]
    assert sum(rows for rows, _ in test.kinds.values()) == 20
    true = sum(rows * percent / 100 for rows, percent in test.kinds.values())
    assert test.true_percent == pytest.approx(100 * true / 20)
    assert summary.text_only["all"].samples == 20
    assert calls == [(done, 55) for done in range(1, 56)]


def test_a_split_without_rows_is_not_written(tmp_path):
    """Without train or test rows there is no text-only accuracy."""
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
def test_wrong_arguments_are_an_error(tmp_path, task, sizes, words):
    """Nothing is written then."""
    with pytest.raises(UsageError, match=words):
        write_scenes(tmp_path / "scenes", task, sizes)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_data_is_kept_without_overwrite(tmp_path):
    """With overwrite, it is replaced, and no old file remains."""
    write_scenes(tmp_path / "scenes", "nlvr2", {"test": 3})
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="exists and is not empty"):
        write_scenes(tmp_path / "scenes", "nlvr2", {"test": 1})
    assert contents(tmp_path) == before
    write_scenes(tmp_path / "scenes", "nlvr2", {"val": 1}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    assert len(contents(tmp_path)) == 3


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    """A mistyped folder name and --overwrite must not delete the user's files."""
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(OutputError, match=r"is not replaced: it also holds thesis\.tex"):
        write_scenes(tmp_path, "nlvr2", {"test": 1}, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


def test_the_folder_may_be_empty_or_new(tmp_path):
    """Parent folders are created."""
    (tmp_path / "made").mkdir()
    for name in ("made", "a/b"):
        write_scenes(tmp_path / name, "nlvr2", {"test": 1})
        assert len(contents(tmp_path / name)) == 3


def test_an_interrupted_call_leaves_no_files(tmp_path):
    """There is neither an incomplete nor a hidden folder, and earlier data remain."""
    write_scenes(tmp_path / "scenes", "nlvr2", {"test": 1})
    before = contents(tmp_path)

    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "scenes", "nlvr2", {"test": 3}, overwrite=True, progress=interrupt)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    """A file has the name of the folder or of its parent."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/scenes"):
        with pytest.raises(OutputError) as caught:
            write_scenes(path, "nlvr2", {"test": 1}, overwrite=True)
        assert len(str(caught.value).splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
