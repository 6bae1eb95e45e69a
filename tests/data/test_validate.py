"""What `madtp data` reports; the tests put faults into data and know every number."""

from __future__ import annotations

import json
import shutil

import pytest

from madtp_cli import data, tasks
from madtp_cli.data import schemas
from madtp_cli.data.validate import require_usable, validate
from madtp_cli.errors import DataError
from madtp_cli.progress import ProgressReporter
from tests.data.conftest import blip_rows, write_image

#: Every task with the name of its schema.
TASKS = {name: tasks.get(name).schema for name in tasks.names()}


class RecordedProgress(ProgressReporter):
    """Records the totals and the last position of all stages."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.totals: list[int] = []
        self.done_so_far = 0

    def start(self, stage: str, total: int) -> None:
        """Record the total of a stage."""
        self.totals.append(total)

    def advance(self, done: int, detail: str = "") -> None:
        """Record the position."""
        self.done_so_far = done


@pytest.fixture
def captions(tmp_path):
    """Eight train and four test images with two captions each; all are different and none is missing."""
    for split, number in (("train", 8), ("test", 4)):
        lines = ["image,caption\n"]
        for i in range(number):
            write_image(tmp_path / f"{split}{i}.png", i + 50 * (split == "test"))
            lines += [f"{split}{i}.png,One {i}.\n", f"{split}{i}.png,Two {i}.\n"]
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    return tmp_path


def test_every_task_is_tried_and_three_rows_are_reported(captions):
    """One report shows what the data can be used for."""
    report = validate(captions, TASKS, ProgressReporter())
    assert list(report.tasks) == ["caption", "embedding", "retrieval"]
    part = report.tasks["caption"]
    assert part.layout.startswith("table with an image column")
    assert {split: rows.rows for split, rows in part.splits.items()} == {"train": 7, "val": 1, "test": 4}
    count = part.splits["test"].captions_per_image
    assert count is not None
    assert (count.least, count.mean, count.most) == (2, 2, 2)
    assert [(row.split, row.text) for row in part.samples] == [("train", part.samples[i].text) for i in range(3)]
    assert part.samples[0].references == [part.samples[0].text, part.samples[0].text.replace("One", "Two")]
    assert all(image.missing == image.unreadable == 0 for image in report.images.values())
    assert report.duplicates == []
    assert len(report.notes) == 1
    require_usable(report)


def test_missing_and_unreadable_images_are_counted(captions):
    """The user sees all of them at once, and not one error after another."""
    (captions / "test0.png").unlink()
    for name in ("test1.png", "test2.png"):
        (captions / name).write_bytes((captions / name).read_bytes()[:40])
    progress = RecordedProgress()
    report = validate(captions, {"retrieval": "captions"}, progress)
    part = report.images["test"]
    assert (part.images, part.missing, part.checked, part.unreadable) == (4, 1, 3, 2)
    assert part.missing_first == [str(captions / "test0.png")]
    assert "test1.png cannot be decoded" in part.unreadable_first[0]
    assert (progress.totals, progress.done_so_far) == ([11], 11)
    with pytest.raises(DataError, match="images missing: 1, unreadable: 2"):
        require_usable(report)


def test_a_limit_applies_to_decoding_only(captions):
    """Decoding a hundred thousand images takes long; checking whether they exist does not."""
    (captions / "test3.png").unlink()
    report = validate(captions, {"caption": "captions"}, ProgressReporter(), limit=2)
    assert {split: part.checked for split, part in report.images.items()} == {"train": 2, "val": 1, "test": 2}
    assert report.images["test"].missing == 1


def test_images_in_two_splits_are_found_by_content(captions):
    """A test image that is also a train image makes the result too good, whatever its name."""
    shutil.copy(captions / "test1.png", captions / "train0.png")
    shutil.copy(captions / "test1.png", captions / "train1.png")
    (captions / "val.csv").write_text("image,caption\ntest2.png,One.\n")
    report = validate(captions, {"caption": "captions"}, ProgressReporter())
    found = [(twice.splits, twice.images) for twice in report.duplicates]
    assert found == [(["train", "test"], 1), (["val", "test"], 1)]


def test_the_balance_of_labels_and_answers_is_reported(write_blip, tmp_path):
    """A model that always gives the most frequent answer reaches its share."""
    folder = write_blip({"train": blip_rows("train", 4), "test": blip_rows("test", 5)})
    report = validate(folder, {"nlvr2": "statements"}, ProgressReporter())
    assert report.tasks["nlvr2"].splits["test"].true_percent == pytest.approx(60)
    assert [row.label for row in report.tasks["nlvr2"].samples] == [1, 0, 1]
    write_image(tmp_path / "q/1.png")
    answers = ["yes"] * 6 + ["no"] * 3 + ["red"]
    rows = [{"image": "1.png", "question": f"{i}?", "answers": answers} for i in range(2)]
    (tmp_path / "q/test.json").write_text(json.dumps(rows))
    part = validate(tmp_path / "q", TASKS, ProgressReporter()).tasks
    assert list(part) == ["embedding", "vqa"]
    counted = part["vqa"].splits["test"].most_common_answers
    assert counted is not None
    assert [(part.answer, part.percent) for part in counted] == [("yes", 60), ("no", 30), ("red", 10)]


def test_a_fault_for_one_task_is_a_note_if_another_task_can_use_the_data(captions):
    """It is an error only if no task can use the data."""
    shutil.copy(captions / "test0.png", captions / "a.png")
    (captions / "test.csv").write_text("image,question,answer,caption,text\na.png,What?,dog,x,y\n")
    (captions / "train.csv").unlink()
    report = validate(captions, TASKS, ProgressReporter())
    assert list(report.tasks) == ["embedding", "vqa"]
    assert [note.partition(":")[0] for note in report.notes] == ["not for caption", "not for retrieval"]
    with pytest.raises(DataError, match="several columns may hold the caption"):
        validate(captions, {"caption": "captions"}, ProgressReporter())


def test_unrecognised_data_are_an_error_that_names_the_tasks(tmp_path):
    """The message names all tasks that were tried."""
    with pytest.raises(DataError, match="no annotations for caption or classification or nlvr2 or retrieval or vqa"):
        validate(tmp_path, TASKS, ProgressReporter())


def test_tasks_with_one_schema_share_one_reading(captions, monkeypatch):
    """Captioning and retrieval use the same rows, so a large file is read once."""
    schemas_read = []

    def read(path, schema, **options):
        schemas_read.append(schema)
        return original(path, schema, **options)

    original = data.read
    monkeypatch.setattr(data, "read", read)
    report = validate(captions, TASKS, ProgressReporter())
    assert sorted(schemas_read) == ["captions", "classes", "images", "questions", "statements"]
    assert report.tasks["caption"] == report.tasks["retrieval"]


def test_every_task_names_a_schema():
    """Data can be read for every task."""
    assert {tasks.get(name).schema for name in tasks.names()} <= {*schemas.SCHEMAS}
