"""The JSON files of BLIP for VQA, captions and retrieval, and the errors about wrong ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from madtp_cli import data
from tests.data.readers.conftest import error_text, layouts, names, write


def question(number: int, **fields: Any) -> dict[str, Any]:
    """Return a row of vqa_train.json."""
    return {
        "question_id": 100 + number,
        "image": f"val2014/{number // 2}.jpg",
        "question": f"How many are {number}?",
        "answer": ["two", "2", "two"],
        "dataset": "vqa",
        **fields,
    }


def write_vqa(folder, split, rows):
    """Write a VQA file in the layout of BLIP, with its images."""
    return write(folder / f"annotation/vqa_{split}.json", rows, {f"images/val2014/{n}.jpg" for n in range(3)})


def write_captions(folder, split, rows, stem="coco_karpathy"):
    """Write a caption file in the layout of BLIP, with its images."""
    images = {f"images/{row['image']}" for row in rows if isinstance(row.get("image"), str)}
    return write(folder / f"annotation/{stem}_{split}.json", rows, images)


def test_every_answer_is_a_reference(tmp_path):
    """The score counts how many of ten people gave an answer, so repetitions stay; Visual Genome has one answer."""
    folder = write_vqa(tmp_path, "val", [question(0), question(1, answer="a red bus")])
    found = data.read(folder, "questions").split("val")
    assert [row.references for row in found] == [("two", "2", "two"), ("a red bus",)]
    assert [(row.identifier, row.text) for row in found] == [("100", "How many are 0?"), ("101", "How many are 1?")]
    assert names(found) == ["0.jpg", "0.jpg"]


def test_a_test_split_without_answers_is_read_with_a_note(tmp_path):
    """vqa_test.json has no answers; a model can still answer its questions."""
    rows = [{"image": "val2014/0.jpg", "question": "What?", "question_id": 5, "dataset": "vqa"}]
    write_vqa(tmp_path, "val", [question(0)])
    found = data.read(write_vqa(tmp_path, "test", rows), "questions")
    assert found.split("test")[0].references == ()
    assert found.notes == ["the test split has no answers: a model can answer its questions, but they cannot be scored"]


@pytest.mark.parametrize("answer", [None, [], "", " ", ["", " "]])
@pytest.mark.parametrize("split", ["train", "val"])
def test_train_and_val_questions_need_an_answer(tmp_path, split, answer):
    """A question without an answer cannot be used for training or scoring."""
    row = {name: value for name, value in question(1, answer=answer).items() if value is not None}
    folder = write_vqa(tmp_path, split, [question(0), row])
    assert f"vqa_{split}.json, row 2: the row has no answer" in error_text(folder, "questions")
    write_vqa(tmp_path, split, [row])
    assert f"vqa_{split}.json, row 1: the row has no answer" in error_text(folder, "questions")


def test_a_test_split_has_all_answers_or_none(tmp_path):
    """The score of a part would be taken for the score of the split."""
    folder = write_vqa(tmp_path, "test", [question(0), question(1, answer=[])])
    assert "vqa_test.json, row 2: the row has no answer" in error_text(folder, "questions")


def test_blank_answers_are_left_out(tmp_path):
    """One blank answer of ten must not make the data unusable."""
    folder = write_vqa(tmp_path, "val", [question(0, answer=["", "yes", " "])])
    assert data.read(folder, "questions").split("val")[0].references == ("yes",)


@pytest.mark.parametrize("answer", [True, None, {"text": "yes"}, ["yes", None], [["yes"]], float("nan")])
def test_answers_must_be_texts(tmp_path, answer):
    """What another value means cannot be guessed."""
    folder = write_vqa(tmp_path, "val", [question(0), question(1, answer=answer)])
    assert "vqa_val.json, row 2: field 'answer' must be a text or a list of texts" in error_text(folder, "questions")


@pytest.mark.parametrize(
    ("schema", "field"), [("questions", "image"), ("questions", "question"), ("captions", "image")]
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_missing_field_is_named_with_its_row(tmp_path, schema, field, number):
    """This includes the first row, because later rows show the layout too."""
    rows = [question(n) if schema == "questions" else {"image": f"{n}.jpg", "caption": "a dog"} for n in range(3)]
    del rows[number - 1][field]
    folder = write_vqa(tmp_path, "val", rows) if schema == "questions" else write_captions(tmp_path, "val", rows)
    assert f"_val.json, row {number}: field '{field}' is missing" in error_text(folder, schema)


def test_the_captions_of_an_image_are_one_row(tmp_path):
    """The train files have one record per caption; counting an image five times would make retrieval easier."""
    order = (2, 0, 1, 0, 2, 0)
    write_captions(
        tmp_path, "train", [{"image": f"{n}.jpg", "caption": f"{n}, {i}", "image_id": n} for i, n in enumerate(order)]
    )
    folder = write_captions(tmp_path, "val", [{"image": "7.jpg", "caption": ["a cat ", "two cats"]}])
    found = data.read(folder, "captions")
    train, (val,) = found.split("train"), found.split("val")
    assert names(train) == ["2.jpg", "0.jpg", "1.jpg"]
    assert [row.references for row in train] == [("2, 0", "2, 4"), ("0, 1", "0, 3", "0, 5"), ("1, 2",)]
    assert [row.text for row in train] == ["2, 0", "0, 1", "1, 2"]
    assert (val.identifier, val.text, val.references) == ("7.jpg", "a cat ", ("a cat ", "two cats"))


def test_json_lines_give_the_same_rows(tmp_path):
    """Users convert the lists to lines to stream them."""
    rows = [{"image": f"{n // 2}.jpg", "caption": f"{n}"} for n in range(4)]
    whole = data.read(write_captions(tmp_path / "list", "val", rows), "captions").split("val")
    folder = write_captions(tmp_path / "lines", "val", rows)
    (folder / "annotation/coco_karpathy_val.json").unlink()
    (folder / "annotation/coco_karpathy_val.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    lines = data.read(folder, "captions").split("val")
    assert [row.references for row in lines] == [row.references for row in whole] == [("0", "1"), ("2", "3")]


@pytest.mark.parametrize("caption", ["", " \n", [], [" "]])
def test_an_image_needs_a_caption(tmp_path, caption):
    """A blank caption would be used for training; if there are others, it is left out."""
    good = [{"image": "0.jpg", "caption": "a dog"}, {"image": "0.jpg", "caption": caption}]
    folder = write_captions(tmp_path, "val", good)
    assert data.read(folder, "captions").split("val")[0].references == ("a dog",)
    write_captions(tmp_path, "val", [*good, {"image": "1.jpg", "caption": caption}])
    assert "coco_karpathy_val.json, row 3: the row has no caption" in error_text(folder, "captions")


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/secret.jpg", "a/../../b.jpg"])
def test_a_path_outside_the_folder_is_an_error(tmp_path, name):
    """Annotation files come from strangers."""
    folder = write(tmp_path / "annotation/vqa_val.json", [question(0, image=name)])
    assert "leaves the data folder" in error_text(folder, "questions")
    folder = write(tmp_path / "annotation/coco_karpathy_val.json", [{"image": name, "caption": "a"}])
    assert "leaves the data folder" in error_text(folder, "captions")


def test_missing_images_are_counted(tmp_path):
    """Each is counted once, even if several rows use it."""
    folder = write(tmp_path / "vqa_val.json", [question(n) for n in range(4)], ["val2014/0.jpg"])
    assert "1 of 2 images named in" in error_text(folder, "questions")


def test_a_validation_split_is_held_out_by_image(tmp_path):
    """Two questions about one image must not be in different splits."""
    rows = [question(n) for n in range(40)]
    folder = write(tmp_path / "vqa_train.json", rows, {str(row["image"]) for row in rows})
    found = data.read(folder, "questions")
    train, val = (set(names(found.split(split))) for split in ("train", "val"))
    assert len(val) == 2
    assert not train & val


def test_all_files_of_blip_may_be_in_one_folder(tmp_path):
    """BLIP's own download puts them into one folder; each schema uses its files and reports which it does not use."""
    write_vqa(tmp_path, "val", [question(0)])
    write_captions(tmp_path, "val", [{"image": "7.jpg", "caption": ["a cat"]}])
    annotation = tmp_path / "annotation"
    truth = {"annotations": [{"image_id": 7, "caption": "a cat", "id": 1}], "images": [{"id": 7}]}
    write(annotation / "coco_karpathy_val_gt.json", truth)
    write(annotation / "answer_list.json", ["yes", "no"])
    write(annotation / "vg_qa.json", [question(0, dataset="vg", answer="a bus")])
    write(annotation / "nlvr_dev.json", [{"sentence": "a", "label": "True", "images": ["a.jpg", "b.jpg"]}])
    found = data.read(tmp_path, "questions")
    assert len(found.split("val")) == 1
    assert found.notes == ["vg_qa.json not used: its name contains no split name"]
    assert data.read(tmp_path, "captions").split("val")[0].references == ("a cat",)


def test_two_data_sets_in_one_folder_are_an_error(tmp_path):
    """COCO and Flickr30k have the same layout, and a mixture of them is not a known benchmark."""
    rows = [{"image": "7.jpg", "caption": ["a cat"]}]
    for stem in ("coco_karpathy", "flickr30k"):
        write_captions(tmp_path, "test", rows, stem)
    assert "Several files belong to the test split" in error_text(tmp_path, "captions")
    assert len(data.read(tmp_path / "annotation/flickr30k_test.json", "captions").split("test")) == 1


@pytest.mark.parametrize("schema", ["questions", "captions"])
def test_rows_with_a_split_field_have_another_layout(tmp_path, schema):
    """A table with a column of splits is divided by it, whatever its name is."""
    row = {"image": "0.jpg", "caption": "a", "question": "What?", "answer": "a", "split": "val"}
    folder = write(tmp_path / "mine_val.json", [row], ["0.jpg"])
    assert "BLIP annotation JSON" not in layouts(folder, schema)


@pytest.mark.parametrize("schema", ["questions", "captions"])
def test_a_file_without_a_split_in_its_name_has_another_layout(tmp_path, schema):
    """The reader of tables reads it, even if a file with another schema has a split in its name."""
    write(tmp_path / "nlvr_dev.json", [{"sentence": "a", "label": "True", "images": ["a.jpg", "b.jpg"]}])
    row = {"image": "0.jpg", "caption": "a", "question": "What?", "answer": "a"}
    folder = write(tmp_path / "mine.json", [row], ["0.jpg"])
    assert "BLIP annotation JSON" not in layouts(folder, schema)
