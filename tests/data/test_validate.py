"""What `madtp data` counts: every number is known, because a fault was put in for it."""

from __future__ import annotations

import json
import shutil

import pytest

from madtp_cli import data, tasks
from madtp_cli.data.validate import refuse_unusable, survey
from madtp_cli.errors import DataError, UsageError
from madtp_cli.progress import ProgressReporter
from tests.data.conftest import blip_rows, picture


class CheckpointOverrides(ProgressReporter):
    """Remembers how far a stage came."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.totals: list[int] = []
        self.done_so_far = 0

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        self.totals.append(total)

    def advance(self, done: int, detail: str = "") -> None:
        """It goes on."""
        self.done_so_far = done


@pytest.fixture
def captions(tmp_path):
    """Eight train and four test images with two captions each, all different and all there."""
    for split, number in (("train", 8), ("test", 4)):
        lines = ["image,caption\n"]
        for i in range(number):
            picture(tmp_path / f"{split}{i}.png", i + 50 * (split == "test"))
            lines += [f"{split}{i}.png,One {i}.\n", f"{split}{i}.png,Two {i}.\n"]
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    return tmp_path


def test_every_task_is_tried_and_three_rows_are_shown(captions):
    """One look tells what the data are good for."""
    report = survey(captions, ProgressReporter())
    assert list(report.tasks) == ["caption", "retrieval"]
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
    refuse_unusable(report)


def test_missing_and_unreadable_images_are_counted_not_raised(captions):
    """All of them in one go, instead of one error after the other."""
    (captions / "test0.png").unlink()
    for name in ("test1.png", "test2.png"):
        (captions / name).write_bytes((captions / name).read_bytes()[:40])
    told = CheckpointOverrides()
    report = survey(captions, told, task="retrieval")
    part = report.images["test"]
    assert (part.images, part.missing, part.checked, part.unreadable) == (4, 1, 3, 2)
    assert part.missing_first == [str(captions / "test0.png")]
    assert "test1.png cannot be decoded" in part.unreadable_first[0]
    assert (told.totals, told.done_so_far) == ([11], 11)
    with pytest.raises(DataError, match="images missing: 1, unreadable: 2"):
        refuse_unusable(report)


def test_a_limit_is_said_and_missing_images_are_still_all_counted(captions):
    """Decoding a hundred thousand images takes long; looking whether they are there does not."""
    (captions / "test3.png").unlink()
    report = survey(captions, ProgressReporter(), task="caption", limit=2)
    assert {split: part.checked for split, part in report.images.items()} == {"train": 2, "val": 1, "test": 2}
    assert report.images["test"].missing == 1


def test_images_in_two_splits_are_found_by_content(captions):
    """A test image that was trained on flatters the result, whatever it is called."""
    shutil.copy(captions / "test1.png", captions / "train0.png")
    shutil.copy(captions / "test1.png", captions / "train1.png")
    (captions / "val.csv").write_text("image,caption\ntest2.png,One.\n")
    report = survey(captions, ProgressReporter(), task="caption")
    found = [(twice.splits, twice.images) for twice in report.duplicates]
    assert found == [(["train", "test"], 1), (["val", "test"], 1)]


def test_labels_and_answers_are_balanced_or_not(write_blip, tmp_path):
    """A model that always says yes scores what the commonest answer has."""
    report = survey(
        write_blip({"train": blip_rows("train", 4), "test": blip_rows("test", 5)}), ProgressReporter(), task="nlvr2"
    )
    assert report.tasks["nlvr2"].splits["test"].true_percent == pytest.approx(60)
    assert [row.label for row in report.tasks["nlvr2"].samples] == [1, 0, 1]
    picture(tmp_path / "q/1.png")
    answers = ["yes"] * 6 + ["no"] * 3 + ["red"]
    rows = [{"image": "1.png", "question": f"{i}?", "answers": answers} for i in range(2)]
    (tmp_path / "q/test.json").write_text(json.dumps(rows))
    part = survey(tmp_path / "q", ProgressReporter()).tasks
    assert list(part) == ["vqa"]
    counted = part["vqa"].splits["test"].most_common_answers
    assert counted is not None
    assert [(part.answer, part.percent) for part in counted] == [("yes", 60), ("no", 30), ("red", 10)]


def test_a_task_that_fails_is_a_note_where_another_can_be_served(captions):
    """Only when nothing is left it is an error."""
    shutil.copy(captions / "test0.png", captions / "a.png")
    (captions / "test.csv").write_text("image,question,answer,caption,text\na.png,What?,dog,x,y\n")
    (captions / "train.csv").unlink()
    report = survey(captions, ProgressReporter())
    assert list(report.tasks) == ["vqa"]
    assert [note.partition(":")[0] for note in report.notes] == ["not for caption", "not for retrieval"]
    with pytest.raises(DataError, match="several columns may hold the caption"):
        survey(captions, ProgressReporter(), task="caption")


def test_what_cannot_be_surveyed_says_what_there_is(tmp_path):
    """Tasks or layouts."""
    with pytest.raises(UsageError, match="Choose one of: nlvr2, vqa, caption, retrieval"):
        survey(tmp_path, ProgressReporter(), task="chess")
    with pytest.raises(DataError, match="no annotations for nlvr2 or vqa or caption or retrieval"):
        survey(tmp_path, ProgressReporter())


def test_every_task_is_one_that_data_can_be_read_for():
    """A new task that `madtp data` never tries would look as if nothing could serve it."""
    assert {*tasks.names()} <= {*data.TASKS}
