"""The code next to the weights: a process that has transformers but not madtp gives the same results."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, pipeline
from transformers.dynamic_module_utils import get_relative_import_files

from madtp_cli import methods, models
from madtp_cli.checkpoint import processors, remote_code
from madtp_cli.models.clip.retrieval import MadtpClipForRetrieval
from tests import decoding, encoders, querying, retrieving, siglips, vilts
from tests.paths import PACKAGE
from tests.tasks import words

Batch = dict[str, Tensor]
PICTURE = Image.new("RGB", (60, 50), (200, 30, 60))

#: Runs without madtp: the results of each folder, and the errors of readers that must refuse it.
WITHOUT_MADTP = """
import importlib, sys
sys.modules["madtp_cli"] = None  # not importable, even if it is installed
import torch, transformers

def error(read, *arguments):
    try:
        read(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

given, found = torch.load(sys.argv[1], weights_only=False), {}
for kind, (folder, batch, stock) in given.items():
    refusals = {"stock": error(getattr(transformers, stock).from_pretrained, folder),
                "auto": error(transformers.AutoModel.from_pretrained, folder)}
    model = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        output = model(**batch)
        result = output["logits"] if "logits" in output else output["image_embeds"]
        found[kind] = {"logits": result, "threshold_scale": model.pruning.threshold_scale, **refusals}
    if kind in ("blip.nlvr2", "blip.vqa"):
        pictures = [sys.modules["PIL.Image"].new("RGB", (60, 50), (200, 30, 60))] * (2 if kind == "blip.nlvr2" else 1)
        processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        with torch.no_grad():
            made = processor(images=pictures, text="the red ring", return_tensors="pt")
            found[kind]["prepared"] = model(**made).logits
    if kind == "blip.caption":
        pipe = transformers.pipeline("image-text-to-text", model=folder, trust_remote_code=True)
        found[kind]["text"] = pipe(sys.modules["PIL.Image"].new("RGB", (60, 50), (200, 30, 60)), text="a picture")
    if kind == "clip.embedding":
        pipe = transformers.pipeline("image-feature-extraction", model=folder, trust_remote_code=True)
        found[kind]["features"] = pipe(sys.modules["PIL.Image"].new("RGB", (60, 50), (200, 30, 60)))
methods = importlib.import_module(type(model).__module__.rsplit(".", 1)[0] + ".madtp_methods")
found["methods"] = {name: methods.get(name).MERGED_TOKENS for name in methods.names()}
found["no method"] = error(methods.get, "no-such")

# Runs with madtp: the modules that importing it loads, and those that reading a configuration loads.
del sys.modules["madtp_cli"]
import madtp_cli.models
towers = ("towers", "nlvr2", "vqa", "caption", "retrieval")
imported = lambda: {name for name in sys.modules
                    if name.startswith("madtp_cli.models.") and name.endswith(towers)}
found["before"] = imported()
transformers.AutoConfig.from_pretrained(given["clip.retrieval"][0])
found["after"] = imported()
torch.save(found, sys.argv[2])
"""


@dataclass
class Folder:
    """A saved folder, its model, a batch, and transformers' own class that could read the folder by mistake."""

    path: Path
    model: Any
    batch: Batch
    stock: str


def _inputs(kind: str, batch: Batch) -> Batch:
    if kind.endswith(".embedding"):
        return {"pixel_values": batch["pixel_values"]}
    return {name: batch[name] for name in batch if name != "labels"}


def _result(output: Any) -> Tensor:
    found: Tensor = output["logits"] if "logits" in output else output["image_embeds"]
    return found


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory,
    attached: Callable[..., Any],
    attached_clip: Callable[..., MadtpClipForRetrieval],
    samples: list[Batch],
    clip: MadtpClipForRetrieval,
    captioned: list[Batch],
    collate: Callable[..., Batch],
) -> dict[str, Folder]:
    """Saved folders of every kind of model, pruned by either method, with their code."""
    made = {
        "blip.nlvr2": (attached(0.4), collate(samples), "BlipModel"),
        "blip.vqa": (
            decoding.attached(decoding.vqa(), 0.4, method="madtp-paper"),
            decoding.collate(decoding.questions()),
            "BlipForQuestionAnswering",
        ),
        "blip.caption": (
            decoding.attached(decoding.captioner(), 0.4),
            decoding.collate(decoding.captions()),
            "BlipForConditionalGeneration",
        ),
        "blip.retrieval": (
            retrieving.attached(retrieving.dense(), 0.4),
            retrieving.collate(retrieving.samples()),
            "BlipForImageTextRetrieval",
        ),
        "blip2.retrieval": (
            retrieving.attached(querying.dense(), 0.4),
            retrieving.collate(retrieving.samples()),
            "Blip2ForImageTextRetrieval",
        ),
        "siglip.retrieval": (
            retrieving.attached(siglips.dense(), 0.4),
            siglips.collate([siglips.padded(sample) for sample in captioned]),
            "SiglipModel",
        ),
        "vilt.nlvr2": (
            vilts.attached(vilts.dense("nlvr2"), 0.4),
            vilts.collate(vilts.samples("nlvr2")),
            "ViltForImagesAndTextClassification",
        ),
        "vilt.vqa": (
            vilts.attached(vilts.dense("vqa"), 0.4),
            vilts.collate(vilts.samples("vqa")),
            "ViltForQuestionAnswering",
        ),
        "clip.retrieval": (attached_clip("madtp-paper", 0.4), collate(captioned), "CLIPModel"),
        **{
            f"{name}.{task}": (retrieving.attached(encoders.for_task(dense, task), 0.4), batch, stock)
            for task in ("classification", "embedding")
            for name, dense, batch, stock in (
                ("clip", clip, collate(captioned), "CLIPModel"),
                ("siglip", siglips.dense(), siglips.collate([siglips.padded(one) for one in captioned]), "SiglipModel"),
            )
        },
    }
    folders = {}
    for kind, (model, batch, stock) in made.items():
        path = tmp_path_factory.mktemp("folders") / kind
        model.save_pretrained(path)
        processor = models.family_of(model.config).task_processor(words.processor(), model.config.task)
        if kind.endswith(".embedding"):
            processor = processors.build(model.config, None)
        processor.save_pretrained(path)
        remote_code.write(model, path)
        remote_code.write_processor(processor, path)
        folders[kind] = Folder(path, model, _inputs(kind, batch), stock)
    return folders


@pytest.fixture(scope="module")
def without_madtp(folders: dict[str, Folder], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process without madtp finds in the folders."""
    folder = tmp_path_factory.mktemp("without_madtp")
    torch.save({kind: (str(one.path), one.batch, one.stock) for kind, one in folders.items()}, folder / "given")
    environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", WITHOUT_MADTP, str(folder / "given"), str(folder / "found")]
    ended = subprocess.run(
        command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = torch.load(folder / "found", weights_only=False)
    return found


def test_every_kind_has_a_folder(folders: dict[str, Folder]) -> None:
    """A new kind of model must be tested too."""
    assert sorted(folders) == models.kinds()


@pytest.mark.parametrize("kind", models.kinds())
def test_the_logits_are_bitwise_equal_without_madtp(
    without_madtp: dict[str, Any], folders: dict[str, Folder], kind: str
) -> None:
    """The code in the folder runs, and it prunes."""
    with torch.no_grad():
        expected = _result(folders[kind].model(**folders[kind].batch))
    assert torch.equal(without_madtp[kind]["logits"], expected)
    assert without_madtp[kind]["threshold_scale"] == 0.4


@pytest.mark.parametrize("kind", ["blip.nlvr2", "blip.vqa"])
def test_the_processor_works_without_madtp(
    without_madtp: dict[str, Any], folders: dict[str, Folder], kind: str
) -> None:
    """It is not one of transformers' classes, so its code is in the folder too."""
    processor = AutoProcessor.from_pretrained(folders[kind].path)
    pictures = [PICTURE] * (2 if kind == "blip.nlvr2" else 1)
    with torch.no_grad():
        logits = folders[kind].model(**processor(images=pictures, text="the red ring", return_tensors="pt")).logits
    torch.testing.assert_close(without_madtp[kind]["prepared"], logits, rtol=0, atol=1e-5)


def test_a_pipeline_gives_the_embedding_of_an_image_without_madtp(
    without_madtp: dict[str, Any], folders: dict[str, Folder]
) -> None:
    """The folder of an image encoder has an image processor and no tokenizer."""
    model, processor = folders["clip.embedding"].model, AutoProcessor.from_pretrained(folders["clip.embedding"].path)
    with torch.no_grad():
        expected = model(**processor(images=PICTURE, return_tensors="pt")).image_embeds
    torch.testing.assert_close(torch.tensor(without_madtp["clip.embedding"]["features"]), expected)


def test_a_pipeline_gives_the_same_text_without_madtp(
    without_madtp: dict[str, Any], folders: dict[str, Folder]
) -> None:
    """Generation works with the flat files too."""
    pipe = pipeline("image-text-to-text", model=str(folders["blip.caption"].path))
    assert without_madtp["blip.caption"]["text"] == pipe(PICTURE, text="a picture")


@pytest.mark.parametrize("kind", models.kinds())
def test_readers_without_our_code_are_refused(without_madtp: dict[str, Any], kind: str) -> None:
    """transformers' own classes would drop the dictionary and run dense, with only a warning."""
    assert "tokens are pruned here" in without_madtp[kind]["stock"]
    assert "trust_remote_code=True" in without_madtp[kind]["auto"]


def test_methods_are_found_without_their_folder(without_madtp: dict[str, Any]) -> None:
    """In the package they are the files of a folder, which the flat files do not have."""
    assert without_madtp["methods"] == {name: methods.get(name).MERGED_TOKENS for name in methods.names()}
    assert without_madtp["no method"].startswith("UsageError: There is no method 'no-such'")


def test_models_are_imported_when_a_configuration_of_their_family_is_read(without_madtp: dict[str, Any]) -> None:
    """Every command imports the package, but loads only the models that it uses."""
    assert without_madtp["before"] == set()
    families = {name.removeprefix("madtp_cli.models.").split(".")[0] for name in without_madtp["after"]}
    assert "clip" in families
    assert "blip" not in families


@pytest.mark.parametrize("kind", models.kinds())
def test_transformers_copies_every_file(folders: dict[str, Folder], kind: str) -> None:
    """transformers follows only one form of import. A file that it does not find would be missing elsewhere."""
    folder = folders[kind].path
    written = {str(path) for path in folder.glob("*.py")}
    model = folder / f"madtp_models_{kind.replace('.', '_')}.py"
    processor = {path for path in written if path.endswith("_processing.py")}
    assert {str(model), *get_relative_import_files(model)} == written - processor
    assert all(get_relative_import_files(path) == [] for path in processor)


@pytest.mark.parametrize("kind", models.kinds())
def test_shipped_files_have_a_license_and_no_local_paths(kind: str) -> None:
    """They are published with the weights."""
    for name, text in remote_code.files(kind).items():
        assert text.startswith("# Copyright the madtp authors. SPDX-License-Identifier: Apache-2.0\n"), name
        assert not re.search(r"^\s*(from|import) madtp_cli", text, re.MULTILINE), name
        assert str(PACKAGE.parent) not in text
        assert "__path__" not in text, "it looks into a folder that is not there"


def test_a_shipped_file_differs_only_in_its_imports() -> None:
    """The shipped code is the code that is tested here."""

    def rest(source: str) -> list[str]:
        return [ast.unparse(node) for node in ast.parse(source).body if not isinstance(node, ast.ImportFrom)]

    shipped = remote_code.files("blip.nlvr2")
    for folder, file in (("execution", "block_pruner"), ("pruning", "merging"), ("methods", "madtp")):
        own = (PACKAGE / folder / f"{file}.py").read_text(encoding="utf-8")
        assert rest(shipped[f"madtp_{folder}_{file}.py"].removesuffix(remote_code.THIS)) == rest(own)


def test_an_import_that_cannot_be_shipped_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes when the folder is written, not when it is read elsewhere."""
    (tmp_path / "new_model.py").write_text("import madtp_cli.models.prunable\n")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match=r"models\.new_model imports a module by its full name"):
        remote_code.files("new_model")
