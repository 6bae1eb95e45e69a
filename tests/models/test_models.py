"""The registry of models, and loading through transformers' Auto classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForZeroShotImageClassification,
    pipeline,
)

from madtp_cli import models
from madtp_cli.checkpoint import processors as processors
from madtp_cli.models.blip.caption import MadtpBlipForConditionalGeneration
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.models.blip.retrieval import MadtpBlipForImageTextRetrieval
from madtp_cli.models.blip.vqa import MadtpBlipForQuestionAnswering
from madtp_cli.models.clip.retrieval import MadtpClipForRetrieval
from madtp_cli.models.siglip.retrieval import MadtpSiglipForRetrieval
from tests import decoding, retrieving, siglips
from tests.clip_words import clip_words
from tests.tasks import words

PICTURE = Image.new("RGB", (60, 50), (200, 30, 60))


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, blip: MadtpBlipForNLVR2, clip: MadtpClipForRetrieval
) -> dict[str, Path]:
    """Folders of every kind of model with its processor, as transformers saves them."""
    folder = tmp_path_factory.mktemp("saved")
    dense: dict[str, Any] = {
        "blip.nlvr2": blip,
        "blip.vqa": decoding.vqa(),
        "blip.caption": decoding.captioner(),
        "blip.retrieval": retrieving.dense(),
        "clip.retrieval": clip,
        "siglip.retrieval": siglips.dense(),
    }
    for kind, model in dense.items():
        model.save_pretrained(folder / kind)
        words.processor().save_pretrained(folder / kind)
    own = processors.find(folder / "clip.pt", clip_words(folder / "words", 70), clip.config)
    own.save_pretrained(folder / "clip.retrieval")
    return {kind: folder / kind for kind in dense}


@pytest.mark.parametrize(
    ("auto", "kind", "model"),
    [
        (AutoModel, "blip.nlvr2", MadtpBlipForNLVR2),
        (AutoModel, "blip.vqa", MadtpBlipForQuestionAnswering),
        (AutoModel, "blip.caption", MadtpBlipForConditionalGeneration),
        (AutoModel, "blip.retrieval", MadtpBlipForImageTextRetrieval),
        (AutoModel, "clip.retrieval", MadtpClipForRetrieval),
        (AutoModelForImageTextToText, "blip.vqa", MadtpBlipForQuestionAnswering),
        (AutoModelForImageTextToText, "blip.caption", MadtpBlipForConditionalGeneration),
        (AutoModelForZeroShotImageClassification, "clip.retrieval", MadtpClipForRetrieval),
        (AutoModel, "siglip.retrieval", MadtpSiglipForRetrieval),
        (AutoModelForZeroShotImageClassification, "siglip.retrieval", MadtpSiglipForRetrieval),
    ],
)
def test_an_auto_class_loads_the_model_of_the_folders_task(
    folders: dict[str, Path], auto: Any, kind: str, model: type
) -> None:
    """Models of one family share one model type, but each has its own class."""
    assert type(AutoConfig.from_pretrained(folders[kind])).__name__ == models.get(kind).config_class.__name__
    assert type(auto.from_pretrained(folders[kind])) is model


@pytest.mark.parametrize("kind", ["blip.nlvr2", "blip.retrieval"])
def test_an_auto_class_refuses_another_task(folders: dict[str, Path], kind: str) -> None:
    """Otherwise transformers would load the first model of the Auto class with random weights."""
    with pytest.raises(ValueError, match="is a model for the task .*; read it with AutoModel"):
        AutoModelForImageTextToText.from_pretrained(folders[kind])
    with pytest.raises(ValueError, match="is a model for the task"):
        AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folders[kind]))


def test_a_configuration_is_made_from_its_model_type() -> None:
    """This works even before a configuration was read."""
    assert AutoConfig.for_model("madtp_clip", task="retrieval").model_type == "madtp_clip"


@pytest.mark.parametrize(("kind", "text"), [("blip.caption", "a picture"), ("blip.vqa", "what is the red ?")])
def test_the_pipeline_gives_the_text_of_generate(
    folders: dict[str, Path], kind: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The pipeline passes all inputs that `generate` needs and logs no warning about an unknown model."""
    pipe = pipeline("image-text-to-text", model=str(folders[kind]))
    (answer,) = pipe(PICTURE, text=text, return_full_text=False)
    given = pipe.processor(images=PICTURE, text=text, return_tensors="pt")
    written: Tensor = AutoModel.from_pretrained(folders[kind]).generate(**given)
    (expected,) = pipe.processor.batch_decode(written, skip_special_tokens=True)
    assert answer["generated_text"].strip() == expected.removeprefix(text).strip() != ""
    assert "not supported" not in caplog.text


def test_clip_classifies_in_the_zero_shot_pipeline(folders: dict[str, Path]) -> None:
    """The scores of transformers' pipeline are those of `classify`."""
    pipe = pipeline("zero-shot-image-classification", model=str(folders["clip.retrieval"]))
    labels = ["dog", "a"]
    answers = {answer["label"]: answer["score"] for answer in pipe(PICTURE, labels, hypothesis_template="{}")}
    given = pipe.tokenizer(labels, padding=True, return_tensors="pt")
    pixels = pipe.image_processor(PICTURE, return_tensors="pt")["pixel_values"]
    scores = pipe.model.classify(pixels, given["input_ids"], given["attention_mask"])[0]
    assert [answers[label] for label in labels] == pytest.approx(scores.tolist(), abs=1e-6)


def test_every_model_has_the_right_auto_classes() -> None:
    """A misspelt method name would leave an Auto class without models."""
    assert {kind: models.auto_classes(models.get(kind))[1:] for kind in models.kinds()} == {
        "blip.caption": ["AutoModelForImageTextToText"],
        "blip.nlvr2": [],
        "blip.retrieval": [],
        "blip.vqa": ["AutoModelForImageTextToText"],
        "blip2.retrieval": ["AutoModelForZeroShotImageClassification"],
        "clip.classification": ["AutoModelForZeroShotImageClassification"],
        "clip.embedding": [],
        "clip.retrieval": ["AutoModelForZeroShotImageClassification"],
        "siglip.classification": ["AutoModelForZeroShotImageClassification"],
        "siglip.embedding": [],
        "siglip.retrieval": ["AutoModelForZeroShotImageClassification"],
        "vilt.nlvr2": [],
        "vilt.vqa": [],
    }
    assert all(hasattr(transformers, name) for name in models.AUTO_CLASS_METHODS)
