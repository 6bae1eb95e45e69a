"""The code of model cards, which users copy, runs for the models of every family."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer

from examples.training.vocabularies import siglip_tokenizer
from madtp_cli import models, tasks
from madtp_cli.checkpoint import processors
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.data.image_sources import ImageFile
from tests import decoding, drawing, encoders, querying, retrieving, siglips, vilts
from tests.clip_words import clip_words
from tests.tasks import words


def _siglip() -> Any:
    """Return a model with as many word pieces as the tokenizer."""
    config = siglips.dense().config
    config.text_config.vocab_size = len(siglip_tokenizer(16))
    model = models.get("siglip.retrieval")(config).eval()
    drawing.draw(model, seed=1)
    return model


#: The models. A test of the command line runs the example of blip.nlvr2.
DENSE: dict[str, Callable[[], Any]] = {
    "blip.caption": decoding.captioner,
    "blip.retrieval": retrieving.dense,
    "blip.vqa": decoding.vqa,
    "blip2.retrieval": querying.dense,
    "siglip.classification": lambda: encoders.for_task(_siglip(), "classification"),
    "siglip.embedding": lambda: encoders.for_task(_siglip(), "embedding"),
    "siglip.retrieval": _siglip,
    "vilt.nlvr2": lambda: vilts.dense("nlvr2"),
    "vilt.vqa": lambda: vilts.dense("vqa"),
}


def _tokenizer(family: str, folder: Path) -> Any:
    if family == "clip":
        return CLIPTokenizer.from_pretrained(clip_words(folder / "words", 70), model_max_length=16)
    made = siglip_tokenizer(16) if family == "siglip" else words.tokenizer()
    made.model_max_length = 16
    return made


@pytest.mark.parametrize("kind", [kind for kind in models.kinds() if kind != "blip.nlvr2"])
def test_the_example_of_the_card_runs(
    kind: str, clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Texts are padded as the model needs it, and the similarities are those that the task ranks by."""
    family, name = kind.split(".")
    model = encoders.for_task(clip, name) if family == "clip" else DENSE[kind]()
    tokenizer = None if name in models.families()[family].image_only else _tokenizer(family, tmp_path)
    processor = processors.build(model.config, tokenizer)
    monkeypatch.chdir(tmp_path)
    for file in ("image.png", "image.jpg", "left.png", "right.png"):
        Image.new("RGB", (60, 50), (200, 30, 60)).save(file)
    task: Any = tasks.prepared(name, processor, Dataset("none", "here", {}), config=model.config)
    with torch.no_grad():
        exec(task.example, {"model": model, "processor": processor, "Image": Image})
    printed = capsys.readouterr().out.strip()
    if getattr(model.config, "answers", None):
        assert printed in model.config.answers
    if name == "retrieval":
        row = Row("a", (ImageFile(tmp_path / "image.png"),), "a dog", references=("a dog", "a cat"))
        batch = task.collate([row], processor)
        image, memory = model.embed_images(batch["pixel_values"])
        (sample,) = task.predict(model, SimpleNamespace(image_embedding=image, memory=memory), batch)
        expected = (sample.image.view(-1, sample.texts.shape[1]) @ sample.texts.T).amax(0).tolist()
        shown = re.findall(r"-?\d+\.\d*", printed)
        assert [float(number) for number in shown] == pytest.approx(expected, abs=1e-4)
