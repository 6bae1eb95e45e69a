"""Convert data that others made to layouts that madtp reads: easy-VQA and CIFAR-10."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from madtp_cli.errors import DataError

#: Largest number of test questions and of test images.
TEST_ITEMS = 2000
#: easy-VQA: images of the official train split that become the validation split, with all their questions.
VAL_IMAGES = 100
#: CIFAR-10: images of each class of the official train split that become the validation split.
VAL_IMAGES_PER_CLASS = 100


def write_easy_vqa(source: Path, folder: Path) -> None:
    """Write easy-VQA in the layout of BLIP: vqa_train.json, vqa_val.json, vqa_test.json and answer_list.json.

    The test split has the first questions of the official test split. The validation split has the questions of the
    last images of the official train split. The images are copied.

    Args:
        source: The folder `easy_vqa/data` of the package, with answers.txt, train/ and test/.
        folder: The folder to write, which must not exist.

    Raises:
        DataError: The source is another folder.
    """
    for name in ("answers.txt", "train/questions.json", "test/questions.json"):
        if not (source / name).is_file():
            raise DataError(f"{source / name} does not exist.\nGive the folder easy_vqa/data of the unpacked package.")
    new = _empty_folder(folder)
    train, test = _questions(source, "train"), _questions(source, "test")[:TEST_ITEMS]
    held_out = set(sorted({int(row["image"].split("/")[-1].removesuffix(".png")) for row in train})[-VAL_IMAGES:])
    val_names = {f"images/train/{number}.png" for number in held_out}
    splits = {
        "train": [row for row in train if row["image"] not in val_names],
        "val": [row for row in train if row["image"] in val_names],
        "test": test,
    }
    for split, rows in splits.items():
        (new / f"vqa_{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    answers = (source / "answers.txt").read_text(encoding="utf-8").split()
    (new / "answer_list.json").write_text(json.dumps(answers), encoding="utf-8")
    for split in ("train", "test"):
        shutil.copytree(source / split / "images", new / "images" / split)
    new.rename(folder)


def _questions(source: Path, split: str) -> list[dict[str, Any]]:
    """Read the questions of a split, a list of [question, answer, number of the image]."""
    records = json.loads((source / split / "questions.json").read_text(encoding="utf-8"))
    return [
        {"question_id": number, "image": f"images/{split}/{image}.png", "question": question, "answer": answer}
        for number, (question, answer, image) in enumerate(records)
    ]


def write_cifar10(source: Path, folder: Path) -> None:
    """Write CIFAR-10 as one folder of images per split and class.

    The test split has the first images of each class of the official test split, in equal numbers. The validation
    split has the last images of each class of the official train split.

    Args:
        source: A zip file with train/<class>/1.jpg and test/<class>/1.jpg.
        folder: The folder to write, which must not exist.

    Raises:
        DataError: The source is no such file.
    """
    if not zipfile.is_zipfile(source):
        raise DataError(f"{source} is no zip file.\nGive one with train/<class>/1.jpg and test/<class>/1.jpg.")
    new = _empty_folder(folder)
    with zipfile.ZipFile(source) as archive:
        by_class: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in sorted(archive.namelist()):
            if name.endswith((".jpg", ".png")):
                split, label, _ = name.split("/")
                by_class[split, label].append(name)
        test_images = TEST_ITEMS // len({label for _, label in by_class})
        for (split, label), names in by_class.items():
            parts = {"test": names[:test_images]}
            if split == "train":
                parts = {"train": names[:-VAL_IMAGES_PER_CLASS], "val": names[-VAL_IMAGES_PER_CLASS:]}
            for part, chosen in parts.items():
                (new / part / label).mkdir(parents=True)
                for name in chosen:
                    (new / part / label / Path(name).name).write_bytes(archive.read(name))
    new.rename(folder)


def _empty_folder(folder: Path) -> Path:
    """Return an empty folder beside `folder`, which gets its name when it is complete."""
    new = folder.with_name(f"{folder.name}-incomplete")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    return new
