"""The script for data that others made, on tiny stand-ins in the layouts of easy-VQA and CIFAR-10."""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from examples import other_data, train
from examples.training import other_sets
from madtp_cli import data
from madtp_cli.data.dataset import Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import DataError
from madtp_cli.evaluation.report_parts import environment
from madtp_cli.reporting.comparison import CompareReport, ComparisonRow, DifferencePart
from madtp_cli.reporting.schema import Interval
from tests.paths import EXAMPLES

COLOURS = ("red", "blue")
CLASSES = ("cat", "ship")


@pytest.fixture
def easy_vqa(tmp_path: Path) -> Path:
    """The folder of the package easy-vqa with 6 train and 4 test images, two questions for each."""
    folder = tmp_path / "easy_vqa" / "data"
    for split, images in (("train", 6), ("test", 4)):
        (folder / split / "images").mkdir(parents=True)
        questions = []
        for number in range(images):
            colour = COLOURS[number % 2]
            Image.new("RGB", (64, 64), colour).save(folder / split / "images" / f"{number}.png")
            questions.append(["what color is the shape?", colour, number])
            questions.append(["is there a red shape?", "yes" if colour == "red" else "no", number])
        (folder / split / "questions.json").write_text(json.dumps(questions), encoding="utf-8")
    (folder / "answers.txt").write_text("red\nblue\nyes\nno\n", encoding="utf-8")
    return folder


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """A zip file with 6 train and 4 test images of two classes."""
    file = tmp_path / "cifar.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for split, images in (("train", 6), ("test", 4)):
            for label, colour in zip(CLASSES, COLOURS, strict=True):
                for number in range(images):
                    with archive.open(f"{split}/{label}/{number:04}.png", "w") as entry:
                        Image.new("RGB", (32, 32), colour).save(entry, "png")
    return file


@pytest.fixture
def small_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits that fit the stand-ins."""
    monkeypatch.setattr(other_sets, "VAL_IMAGES", 2)
    monkeypatch.setattr(other_sets, "VAL_IMAGES_PER_CLASS", 2)
    monkeypatch.setattr(other_sets, "TEST_ITEMS", 6)


@pytest.mark.usefixtures("small_splits")
def test_easy_vqa_keeps_the_official_test_split(easy_vqa: Path, tmp_path: Path) -> None:
    """No image of the test or validation split may be used for training."""
    other_sets.write_easy_vqa(easy_vqa, tmp_path / "data")
    read = data.read(tmp_path / "data", "questions")
    assert {split: len(rows) for split, rows in read.splits.items()} == {"train": 8, "val": 4, "test": 6}
    assert read.answers == ("red", "blue", "yes", "no")
    images = {split: {str(row.images[0]) for row in rows} for split, rows in read.splits.items()}
    assert not images["train"] & images["val"]
    assert images["test"] == {str(tmp_path / "data" / "images" / "test" / f"{number}.png") for number in range(3)}
    row = read.split("test")[2]
    assert (row.text, row.references) == ("what color is the shape?", ("blue",))


@pytest.mark.usefixtures("small_splits")
def test_cifar10_has_as_many_test_images_of_each_class(cifar10: Path, tmp_path: Path) -> None:
    """The first images of the test split would all be of one class."""
    other_sets.write_cifar10(cifar10, tmp_path / "data")
    read = data.read(tmp_path / "data", "classes")
    assert {split: len(rows) for split, rows in read.splits.items()} == {"train": 8, "val": 4, "test": 6}
    assert read.answers == CLASSES
    assert [row.text for row in read.split("test")] == ["cat"] * 3 + ["ship"] * 3
    assert [Path(str(row.images[0])).name for row in read.split("val")] == ["0004.png", "0005.png"] * 2


@pytest.mark.parametrize("convert", [other_sets.write_easy_vqa, other_sets.write_cifar10])
def test_a_wrong_source_is_named(convert: Callable[[Path, Path], None], tmp_path: Path) -> None:
    """Nothing is written; the message says what belongs there."""
    with pytest.raises(DataError, match=r"(does not exist|is no zip file)\.\nGive "):
        convert(tmp_path / "nowhere", tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_a_conversion_that_was_interrupted_is_made_again(easy_vqa: Path, tmp_path: Path) -> None:
    """The folder has its name only when it is complete."""
    incomplete = tmp_path / "data-incomplete"
    incomplete.mkdir()
    (incomplete / "vqa_dev.json").write_text("[")
    other_sets.write_easy_vqa(easy_vqa, tmp_path / "data")
    assert not incomplete.exists()
    assert not (tmp_path / "data" / "vqa_dev.json").exists()


@pytest.mark.usefixtures("small_splits")
@pytest.mark.parametrize("name", other_data.EXAMPLES)
def test_the_trained_model_can_be_loaded_and_answers(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, madtp: Callable[..., Any], monkeypatch: Any
) -> None:
    """The words of the data are single tokens, and the images have their own size."""
    monkeypatch.setattr(other_data.train, "train", lambda model, stream, *_: train_one_step(model, stream(0)))
    example, folder = other_data.EXAMPLES[name], tmp_path / name
    example.convert(request.getfixturevalue(name.replace("-", "_")), folder / "data")
    other_data.train_model(example, data.read(folder / "data", example.schema), 1, folder)
    assert json.loads((folder / "training.json").read_text("utf-8"))["train_items"] == 8
    options = ["--data", folder / "data", "--task", example.task, *example.options]
    done = madtp("eval", folder / "model.pt", *options, "--json", "-q")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["quality"]["samples"] == 6


def train_one_step(model: Any, stream: Any) -> int:
    """Check that a batch has a loss with gradients in both towers; return the number of steps."""
    batch = next(stream)
    loss = model(**other_data.train.inputs_of(batch), labels=batch["labels"]).loss
    loss.backward()
    without = [name for name, value in model.named_parameters() if value.grad is None]
    assert torch.isfinite(loss)
    assert not [name for name in without if name.startswith(("vision_model.enc", "text_model.enc"))]
    return 1


class Line(nn.Module):
    """The smallest model that `train` can train."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_model = nn.Linear(2, 2)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> SimpleNamespace:
        """Return the squared error."""
        return SimpleNamespace(loss=(self.vision_model(pixel_values) - labels).float().square().mean())


def two_optimizers(model: Line) -> list[torch.optim.Optimizer]:
    """Return an optimizer for the matrix and one for the bias, both with a state."""
    layer = model.vision_model
    return [torch.optim.SGD([layer.weight], momentum=0.9), torch.optim.AdamW([layer.bias])]


def lines(first: int, last: int) -> Iterator[dict[str, Tensor]]:
    """Yield batches that depend on their number; raise KeyboardInterrupt at the last one."""
    for number in range(first, last):
        inputs = torch.tensor([[1.0, number % 3]])
        yield {"pixel_values": inputs, "labels": 2 * inputs}
    raise KeyboardInterrupt


def test_an_interrupted_training_continues_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training of minutes may take hours next to other programs, and its machine may be needed."""
    monkeypatch.setattr(train, "LOG_SECONDS", 5)
    monkeypatch.setattr(train, "build_optimizers", two_optimizers)

    def trained(model: Line, last: int, state: Path) -> int:
        seconds = itertools.chain([0], itertools.count())  # the first batch comes at the time of the start
        monkeypatch.setattr(train.time, "process_time", lambda: float(next(seconds)))
        return train.train(model, partial(lines, last=last), 0.5, 0, state)

    whole, first, second = Line(), Line(), Line()
    first.load_state_dict(whole.state_dict())
    steps = trained(whole, 99, tmp_path / "whole.state")
    with pytest.raises(KeyboardInterrupt):
        trained(first, 14, tmp_path / "state")
    assert trained(second, 99, tmp_path / "state") == steps
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value)


def test_the_batches_of_a_continued_training_follow_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over the rows has another order than the pass before."""
    monkeypatch.setattr(other_data, "BATCH", 2)
    rows = [Row(str(number), (ImageFile(Path("none")),), "", number) for number in range(5)]

    class Labels:
        def collate(self, rows: Any, processor: Any) -> dict[str, Tensor]:
            return {"labels": torch.tensor([row.label for row in rows])}

    def first(count: int, steps: int) -> list[list[int]]:
        stream = other_data.endless(rows, Labels(), None, steps)
        return [batch["labels"].tolist() for batch in itertools.islice(stream, count)]

    whole = first(9, 0)
    assert sorted(label for labels in whole[:3] for label in labels) == list(range(5))
    assert first(5, 4) == whole[4:]


def report(steps: int) -> CompareReport:
    """Return a comparison with a dense row and one that is off its budget."""
    dense = ComparisonRow(method="dense", budget=None, seeds=[0], gflops=2.0, share=1.0, quality=80.0)
    pruned = ComparisonRow(
        method="tome",
        budget="0.2",
        seeds=[0],
        gflops=0.5,
        share=0.25,
        within_budget=False,
        quality=70.0,
        to_dense=DifferencePart(change=-10, interval95=Interval(low=-12, high=-8)),
    )
    return CompareReport(
        checkpoint="model.pt",
        output="steps",
        task="vqa",
        data="data",
        metric="VQA accuracy",
        split="test",
        samples=2000,
        groups=200,
        steps=steps,
        rows=[dense, pruned],
        files=[],
        settings={},
        environment=environment(torch.device("cpu")),
        seconds=1.0,
    )


def test_a_table_has_shares_intervals_and_marks() -> None:
    """A row that is off its budget must not look like one that meets it."""
    first, _, _, _, dense, pruned = other_data.table(report(0))
    assert first.startswith("Without training; VQA accuracy in percent on 2,000 test samples.")
    assert dense == "| – | dense model | 1.000 | 80.00 | – | – |  |"
    assert pruned == "| 0.2 | tome | 0.250 | 70.00 | -10.00 [-12.00, -8.00] | – | off budget |"
    assert other_data.table(report(120))[0].startswith("After 120 fine-tuning steps; ")


def test_a_missing_comparison_leaves_its_data_set_out_of_the_page(tmp_path: Path) -> None:
    """The page is written after each data set; the other one may not exist yet."""
    folder = tmp_path / "cifar10" / "steps-0"
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_text(report(0).model_dump_json(), encoding="utf-8")
    record = {"minutes": 7.0, "steps": 1500, "batch": 64, "train_items": 49000}
    (tmp_path / "cifar10" / "training.json").write_text(json.dumps(record), encoding="utf-8")
    other_data.write_page(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text("utf-8")
    assert "## easy-VQA" not in page
    assert "Trained for 7 minutes of CPU time: 1,500 steps with 64 of 49,000 samples." in page
    assert "| 0.2 | tome | 0.250 | 70.00 | -10.00 [-12.00, -8.00] | – | off budget |" in page


def test_the_page_has_the_words_of_its_script() -> None:
    """The results take an hour to make, so a change of the explanations is also made in the page by hand."""
    page = (EXAMPLES / "other_data.md").read_text("utf-8")
    assert page.startswith(other_data.INTRODUCTION)


def test_every_data_set_on_the_page_has_every_method_and_budget() -> None:
    """A row that cannot reach its budget is also a result."""
    page = (EXAMPLES / "other_data.md").read_text("utf-8")
    _, *sections = page.split("\n## ")
    assert sections
    for section in sections:
        table = section.partition("Without training; ")[2].partition("\n\nAfter ")[0]
        rows = {tuple(cell.strip() for cell in line.split("|")[1:3]) for line in table.splitlines() if "|" in line}
        assert {(budget, method) for budget in other_data.BUDGETS for method in other_data.METHODS} <= rows
