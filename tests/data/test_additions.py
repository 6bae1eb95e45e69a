"""A new task with a known schema, and a new layout, are one new file each: no existing file changes.

The tests put the new file into another folder and add this folder to the package, so that no existing file can change.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from madtp_cli import data, tasks
from madtp_cli.data import readers, schemas
from madtp_cli.data.validate import validate
from madtp_cli.progress import ProgressReporter
from tests.data.conftest import blip_rows, write_image
from tests.data.readers import (
    test_blip_json,
    test_caption_files,
    test_coco_captions,
    test_huggingface,
    test_karpathy_json,
    test_parquet,
    test_vqa_v2,
    test_webdataset,
)
from tests.data.readers.conftest import write
from tests.data.test_readers import official_rows, write_lines

#: All that a task needs for its data: the attribute `schema`.
TASK = """
class Toy:
    name = "toy"
    schema = "{schema}"


TASK = Toy()
"""

#: A layout with lines of the form "path: caption" in a file with the suffix .toy.
READER = """
from madtp_cli.data import schemas
from madtp_cli.data.parsing import tables
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.parsing.tables import Table

LAYOUT = "toy captions"


def recognises(path, schema):
    return schema == schemas.CAPTIONS and path.is_dir() and any(path.glob("*.toy"))


def read(path, schema, splits, image_root=None):
    found = [Table(file, tables.split_of(file, path), lambda file=file: _load(file)) for file in path.glob("*.toy")]
    return tables.read_tables(path, schema, splits, image_root, layout=LAYOUT, tables=found)


def _load(file):
    rows = [line.partition(": ") for line in file.read_text().splitlines()]
    return [Record(file, n, {"image": image, "caption": text}) for n, (image, _, text) in enumerate(rows, 1)]
"""


def _blip(folder: Path, schema: str) -> None:
    if schema == "statements":
        names = [name for row in blip_rows("test", 2) for name in row["images"]]
        write(folder / "nlvr_test.json", blip_rows("test", 2), names)
    elif schema == "questions":
        test_blip_json.write_vqa(folder, "test", [test_blip_json.question(0)])
    else:
        test_blip_json.write_captions(folder, "test", [{"image": "1.jpg", "caption": ["a dog"]}])


def _official_nlvr2(folder: Path, schema: str) -> None:
    write_lines(folder / "test1.json", official_rows("test1", 2))
    for side in (0, 1):
        write_image(folder / f"test1/test1-0-1-img{side}.png")


def _coco(folder: Path, schema: str) -> None:
    test_coco_captions.write_captions(folder, "test2014")


def _karpathy(folder: Path, schema: str) -> None:
    test_karpathy_json.write_images(folder, [test_karpathy_json.image(1, "test")])


def _flickr(folder: Path, schema: str) -> None:
    folder.mkdir()
    test_caption_files.write_token(folder, 2, "test.token")


def _folder(folder: Path, schema: str) -> None:
    write_image(folder / "test/1.png")
    (folder / "test/1.txt").write_text("a dog")


def _classes(folder: Path, schema: str) -> None:
    write_image(folder / "test/dog/1.png")


def _vqa_v2(folder: Path, schema: str) -> None:
    test_vqa_v2.write_pair(folder, "test2015")


#: The fields of one sample beside its images, by schema.
FIELDS = {
    "statements": {"sentence": "Two dogs.", "label": "True"},
    "questions": {"question": "What?", "answer": "dog"},
    "captions": {"caption": "a dog"},
}


def _webdataset(folder: Path, schema: str) -> None:
    sides = ("left.png", "right.png") if schema == "statements" else ("png",)
    images = {f"1.{side}": test_webdataset.encoded(number) for number, side in enumerate(sides)}
    test_webdataset.write_shard(folder / "test.tar", {**images, "1.json": FIELDS[schema]})


def _huggingface(folder: Path, schema: str) -> None:
    image = test_huggingface.row(1)["image"]
    columns = ("left", "right") if schema == "statements" else ("image",)
    string = {"dtype": "string", "_type": "Value"}
    types = {**{name: {"_type": "Image"} for name in columns}, **dict.fromkeys(FIELDS[schema], string)}
    rows = [{**dict.fromkeys(columns, image), **FIELDS[schema]}]
    test_huggingface.write(folder / "data.arrow", rows, types)
    (folder / "state.json").write_text('{"_split": "test"}')


def _parquet(folder: Path, schema: str) -> None:
    columns = ("left", "right") if schema == "statements" else ("image",)
    images = {name: test_parquet.stored(number) for number, name in enumerate(columns)}
    test_parquet.write(folder / "test.parquet", [{**images, **FIELDS[schema]}])


def _table(folder: Path, schema: str) -> None:
    columns = ("left", "right") if schema == "statements" else ("image",)
    fields = {name: f"{number}.png" for number, name in enumerate(columns)} | FIELDS[schema]
    for number in range(len(columns)):
        write_image(folder / f"{number}.png", number)
    (folder / "test.csv").write_text(f"{','.join(fields)}\n{','.join(fields.values())}\n")


#: For each reader, the function that writes a small data set, and the schemas that its layout can hold.
WRITERS: dict[str, tuple[Callable[[Path, str], None], list[str]]] = {
    "BLIP annotation JSON": (_blip, ["statements", "questions", "captions"]),
    "official NLVR2 JSON lines": (_official_nlvr2, ["statements"]),
    "COCO captions JSON": (_coco, ["captions"]),
    "Karpathy's split JSON": (_karpathy, ["captions"]),
    "Flickr30k captions (.token)": (_flickr, ["captions"]),
    "folder of images with captions (img.jpg and img.txt)": (_folder, ["captions"]),
    "folder of images by class (train/dog/1.jpg)": (_classes, ["classes"]),
    "folder of images (train/1.jpg)": (_classes, ["images"]),
    "official VQAv2 questions and annotations": (_vqa_v2, ["questions"]),
    "webdataset shards (.tar)": (_webdataset, ["statements", "questions", "captions"]),
    "Hugging Face data set": (_huggingface, ["statements", "questions", "captions"]),
    "Parquet files": (_parquet, ["statements", "questions", "captions"]),
    "table with an image column (CSV, TSV or JSON lines)": (_table, ["statements", "questions", "captions"]),
}

package = test_huggingface.package  # a fixture: the replacement for the package `datasets`


@pytest.fixture
def add_module(tmp_path) -> Iterator[Callable[[ModuleType, str, str], None]]:
    """Add a file outside the package to one of its folders: `add_module(tasks, "toy", content)`."""
    added = []

    def add(package: ModuleType, name: str, content: str) -> None:
        folder = tmp_path / "added" / package.__name__
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(content)
        package.__path__.append(str(folder))
        added.append((package, name, str(folder)))

    yield add
    for package, name, folder in added:
        package.__path__.remove(folder)
        sys.modules.pop(f"{package.__name__}.{name}", None)
        vars(package).pop(name, None)


def test_there_is_a_sample_of_every_layout():
    """A new reader adds a line to `WRITERS`, so that the next test covers it."""
    assert {reader.LAYOUT for reader in data.all_readers()} == WRITERS.keys()


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("layout", "schema"), [(layout, schema) for layout, (_, known) in WRITERS.items() for schema in known]
)
def test_a_new_task_reads_every_layout_of_its_schema(tmp_path, add_module, layout, schema):
    """Files touched: tasks/toy.py, and nothing else."""
    add_module(tasks, "toy", TASK.format(schema=schema))
    assert "toy" in tasks.names()
    WRITERS[layout][0](tmp_path / "mine", schema)
    found = data.read(tmp_path / "mine", tasks.get("toy").schema, ["test"], task="toy")
    assert layout in found.source
    assert found.schema == schema
    assert len(found.split("test")[0].images) == schemas.get(schema).images
    report = validate(tmp_path / "mine", {"toy": tasks.get("toy").schema}, ProgressReporter())
    assert report.tasks["toy"].layout == layout


def test_a_new_layout_is_recognised(tmp_path, add_module):
    """Files touched: data/readers/toy_captions.py, and nothing else."""
    add_module(readers, "toy_captions", READER)
    for name in ("1.png", "2.png"):
        write_image(tmp_path / "mine" / name)
    (tmp_path / "mine/test.toy").write_text("1.png: a dog\n2.png: a cat\n1.png: a red dog\n")
    for task in ("caption", "retrieval"):
        found = data.read(tmp_path / "mine", tasks.get(task).schema, ["test"], task=task)
        assert "toy captions" in found.source
        assert [row.references for row in found.split("test")] == [("a dog", "a red dog"), ("a cat",)]
