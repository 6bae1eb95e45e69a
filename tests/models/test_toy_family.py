"""A new model family needs only new files. The toy family in `toy_family/` proves it: no existing file names it.

The files of a new family:

    madtp_cli/models/<family>/__init__.py          empty
    madtp_cli/models/<family>/family.py            the record FAMILY, see `models.family.Family`
    madtp_cli/models/<family>/<task>.py            MODEL, one file per task, with the configuration class; parts that
                                                   several tasks share go to towers.py
    madtp_cli/models/<family>/costs/__init__.py    empty
    madtp_cli/models/<family>/costs/<task>.py      the FLOPs formula: `tokens` and `costs`

Files of other programs need a new file in madtp_cli/checkpoint/formats/ too. Folders that madtp wrote do not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from madtp_cli import models, tasks
from madtp_cli.checkpoint import inspection, loading, processors, remote_code
from madtp_cli.checkpoint.save import save
from madtp_cli.evaluation import sample_costs
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.exporters import _checking, _tracing, torch_export
from madtp_cli.flops import fvcore_check
from madtp_cli.models.prunable import Prunable
from madtp_cli.scenes import splits
from tests import drawing
from tests.clip_words import clip_words

Batch = dict[str, Tensor]
FAMILIES = Path(__file__).parent / "toy_family"

#: Reads a saved folder in a process without madtp.
WITHOUT_MADTP = """
import sys
sys.modules["madtp_cli"] = None
import torch, transformers
model = transformers.AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
with torch.no_grad():
    torch.save(model(**torch.load(sys.argv[2])).logits, sys.argv[3])
"""


@pytest.fixture(scope="module", autouse=True)
def toy_family() -> Iterator[None]:
    """Make the toy family a part of the package for this file's tests."""
    models.__path__.append(str(FAMILIES))
    yield
    models.__path__.remove(str(FAMILIES))
    for name in [name for name in sys.modules if name.startswith("madtp_cli.models.toy")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def dense(toy_family: None) -> Prunable:
    """A dense model with random weights."""
    config = models.architectures()["toy-smallest"]()
    model = models.get(models.kind_of(config))(config).eval()
    drawing.draw(model, seed=1)
    return model


@pytest.fixture(scope="module")
def pruned(dense: Prunable) -> Prunable:
    """A copy that is pruned in both towers."""
    return drawing.attached(dense, 0.4)


@pytest.fixture(scope="module")
def singles(captioned: list[Batch]) -> list[Batch]:
    """Images with texts of different lengths, each in a batch of its own; labels are left out."""
    return [{name: value for name, value in sample.items() if name != "labels"} for sample in captioned]


@pytest.fixture(scope="module")
def batch(captioned: list[Batch], collate: Callable[..., Batch]) -> Batch:
    """All samples in one batch."""
    return {name: value for name, value in collate(captioned).items() if name != "labels"}


@pytest.fixture(scope="module")
def folder(pruned: Prunable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pruned model as madtp saves it, with its tokenizer and its code."""
    place = tmp_path_factory.mktemp("toy")
    tokenizer = models.family_of(pruned.config).tokenizer.read(clip_words(place / "words", 70))
    save(pruned, processors.build(pruned.config, tokenizer), place / "saved")
    return place / "saved"


def _forward(model: Prunable, batch: Batch) -> Any:
    with torch.no_grad():
        return model(**batch)


def test_the_registry_lists_the_family() -> None:
    """All lists of families are read from the folders."""
    assert "toy" in models.families()
    assert "toy.retrieval" in models.kinds()
    assert models.get("toy.retrieval").__name__ == "ToyForRetrieval"


def test_a_sample_does_not_depend_on_its_batch(pruned: Prunable, batch: Batch, singles: list[Batch]) -> None:
    """Every sample keeps its own number of tokens, and its result equals that of the sample alone."""
    together = _forward(pruned, batch)
    for number, sample in enumerate(singles):
        alone = _forward(pruned, sample)
        torch.testing.assert_close(together.logits[number, number], alone.logits[0, 0], rtol=0, atol=1e-5)
        for tower, blocks in together.trace.items():
            assert [block.left[number] for block in blocks] == [block.left[0] for block in alone.trace[tower]]
    assert len(set(together.trace["vision"][-1].left)) > 1


def test_both_losses_have_gradients(pruned: Prunable, batch: Batch) -> None:
    """Fine-tuning needs the loss of the task, the alignment loss, and distillation targets."""
    model = drawing.attached(pruned, 0.4).train()
    output = model(**batch, labels=torch.arange(5))
    (output.loss + output.alignment).backward()
    assert model.madtp is not None
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in model.madtp.parameters())
    assert output.targets


@pytest.mark.parametrize("method", [None, "madtp", "madtp-paper"])
def test_the_formula_equals_fvcore(dense: Prunable, singles: list[Batch], method: str | None) -> None:
    """For the dense model and for every pruned one."""
    model = drawing.attached(dense, 0.4, method=method) if method else dense
    counts = sample_costs.counts_of(model, _forward(model, singles[0]).trace)
    formula = sample_costs.per_sample(model.config, counts).tolist()
    assert formula == [fvcore_check.count_with_fvcore(model, singles[0])]


def test_a_saved_folder_loads_again(pruned: Prunable, folder: Path, batch: Batch) -> None:
    """The loaded model gives the same logits, and the processor has the family's settings."""
    found = inspection.inspect(folder)
    assert found.refusal is None
    assert found.towers["vision"]["tokens"] == 37
    loaded = loading.load(folder)
    model, processor = loaded.model, loaded.processor
    assert torch.equal(_forward(model, batch).logits, _forward(pruned, batch).logits)
    assert models.family_of_processor(processor).name == "toy"
    assert list(processor.image_processor.image_mean) == [0.5, 0.5, 0.5]


def test_another_image_size_resizes_the_positions(folder: Path) -> None:
    """The record states the key of the position embeddings."""
    loaded = loading.load(folder, image_size=64)
    model, processor = loaded.model, loaded.processor
    assert model.config.vision_config.image_size == 64
    assert processor.image_processor.size["height"] == 64


def test_the_task_runs(folder: Path) -> None:
    """A task needs the model's outputs and the processor, not the family."""
    loaded = loading.load(folder)
    model, processor = loaded.model, loaded.processor
    task, rows = tasks.get("retrieval"), list(splits.rows("retrieval", "val", 3))
    data = task.collate(rows, processor)
    inputs = {name: value for name, value in data.items() if name != "labels" and "." not in name}
    with torch.no_grad():
        predictions = task.predict(model, model(**inputs), data)
    assert len(task.score(model, predictions, rows).answers) >= 6


def test_the_code_runs_without_madtp(pruned: Prunable, folder: Path, batch: Batch, tmp_path: Path) -> None:
    """The folder contains the family's files, which transformers runs."""
    assert (folder / "madtp_models_toy_retrieval.py").is_file()
    assert set(remote_code.files("toy.retrieval")) <= {path.name for path in folder.iterdir()}
    torch.save(batch, tmp_path / "batch")
    paths = [str(folder), str(tmp_path / "batch"), str(tmp_path / "logits")]
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_MADTP, *paths], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert torch.equal(torch.load(tmp_path / "logits"), _forward(pruned, batch).logits)


def test_an_exported_file_gives_the_same_logits(dense: Prunable, tmp_path: Path) -> None:
    """torch.export traces the family's forward on padded tokens."""
    settings = PruningSettings.preset("madtp", dense.widths, dense.blocks)
    model = drawing.attached(dense, 0.4, scales=settings.scales, **asdict(settings.parameters))
    torch_export.write(_tracing.trace(model), tmp_path / "model.pt2")
    check = _checking.compare_outputs(model, torch_export.runner(tmp_path / "model.pt2"))
    assert check.max_difference <= 1e-4
    assert check.kept_image_tokens is not None
