"""The family records: what they state is true of the models, and no other part of the package branches on one."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertTokenizer, CLIPTokenizer

from examples.training.vocabularies import siglip_tokenizer
from madtp_cli import models
from madtp_cli.models.prunable import Prunable
from tests import decoding, drawing, encoders, querying, retrieving, siglips, vilts
from tests.clip_words import clip_words
from tests.paths import PACKAGE
from tests.tasks import words

Batch = dict[str, Tensor]
FAMILY_NAMES = tuple(models.families())
#: Parts of the names of transformers' classes that belong to a family, in lower case.
CLASS_NAMES = (*FAMILY_NAMES, "bert", "siglip", "vilt")
#: What some published architectures state otherwise than the defaults of their family.
OTHER_THAN_DEFAULT = {"clip-vit-h-14": {"hidden_act": "gelu"}}
FILES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[:2] not in [("models", name) for name in FAMILY_NAMES]
)


def branches(source: str) -> Iterator[str]:
    """Yield the expressions that branch on a family: `isinstance` with its classes, comparisons with its name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            if any(name in ast.unparse(node.args[1]).lower() for name in CLASS_NAMES):
                yield ast.unparse(node)
        elif isinstance(node, ast.Compare):
            constants = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            if any(str(constant).removeprefix("madtp_") in FAMILY_NAMES for constant in constants):
                yield ast.unparse(node)
        elif isinstance(node, ast.MatchValue) and ast.unparse(node).strip("'").removeprefix("madtp_") in FAMILY_NAMES:
            yield ast.unparse(node)


@pytest.mark.parametrize("file", FILES)
def test_no_branch_on_a_family_outside_its_folder(file: str) -> None:
    """Such a branch must be edited for every new family; the record of the family states the difference instead."""
    assert list(branches((PACKAGE / file).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(tokenizer, CLIPTokenizer)",
        "isinstance(model, (A, MadtpBlipForNLVR2))",
        'x = 1 if kind == "blip" else 2',
        'config.model_type != "madtp_clip"',
        'kind in ("blip", "clip")',
        'match kind:\n    case "clip":\n        pass',
    ],
)
def test_a_branch_is_found(source: str) -> None:
    """A test that finds nothing would prove nothing."""
    assert len(list(branches(source))) == 1


def test_no_two_families_share_a_processor_class() -> None:
    """The processor of a session tells the family."""
    names = [family.processor_class for family in models.families().values()]
    assert len({*names}) == len(names)


def test_the_family_is_found_from_the_processor(tmp_path: Path) -> None:
    """A task receives a processor, not a configuration."""
    tokenizers: dict[str, Any] = {
        "blip": words.tokenizer(),
        "blip2": words.tokenizer(),
        "vilt": words.tokenizer(),
        "clip": CLIPTokenizer.from_pretrained(clip_words(tmp_path, 70)),
        "siglip": siglip_tokenizer(16),
    }
    for name, family in models.families().items():
        processor = family.build_processor(tokenizers[name], 32, family.image_settings)
        assert type(processor).__name__ == family.processor_class
        assert models.family_of_processor(processor) is family
    with pytest.raises(KeyError, match="BertTokenizer"):
        models.family_of_processor(BertTokenizer())


def test_the_family_is_found_from_a_configuration_or_its_fields(blip: Prunable) -> None:
    """A checkpoint format has only the fields of a config.json."""
    assert models.family_of(blip.config) is models.family_of({"model_type": "madtp_blip"}) is models.families()["blip"]
    with pytest.raises(KeyError):
        models.family_of({"model_type": "unknown"})


@pytest.mark.parametrize("name", models.architectures())
def test_the_record_fits_the_published_architectures(name: str) -> None:
    """Position key, tied keys, towers, vocabulary and head width are those of the model."""
    config = models.architectures()[name]()
    family = models.family_of(config)
    with torch.device("meta"):
        model = models.get(models.kind_of(config))(config)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes[family.position_key][-2] == family.image_tokens(config.vision_config)
    tied: dict[str, str] = getattr(model, "_tied_weights_keys", None) or {}
    assert tied.items() <= family.tied.items()
    assert config.text_config.vocab_size in family.tokenizer.repositories
    for tower, defaults in family.tower_defaults.items():
        part = getattr(config, f"{tower}_config")
        assert part.hidden_size // part.num_attention_heads in family.head_widths
        differences = OTHER_THAN_DEFAULT.get(name, {})
        assert {field: getattr(part, field) for field in defaults} == {**defaults, **differences}
        assert all(hasattr(part, field) for field in family.tower_sizes[tower].values())


@pytest.mark.parametrize("kind", models.kinds())
def test_the_file_of_a_model_has_its_configuration_class(kind: str) -> None:
    """With `trust_remote_code`, transformers looks for both in that file."""
    model = models.get(kind)
    assert getattr(sys.modules[model.__module__], model.config_class.__name__) is model.config_class


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_every_task_has_a_text_limit(name: str) -> None:
    """A kind of text is a task's name, or begins with it."""
    family = models.families()[name]
    assert {kind.split()[0] for kind in family.text_limits} == set(family.tasks) - family.image_only.keys()


def images(samples: list[Batch]) -> Batch:
    """Return the images of some samples alone."""
    return {"pixel_values": torch.cat([sample["pixel_values"] for sample in samples])}


@pytest.mark.parametrize("kind", models.kinds())
def test_the_read_out_token_is_never_pruned(
    kind: str,
    blip: Prunable,
    clip: Prunable,
    samples: list[Batch],
    captioned: list[Batch],
    collate: Callable[..., Batch],
) -> None:
    """Even at the largest threshold scale the model keeps the token that it reads its result from."""
    cases: dict[str, tuple[Prunable, Batch]] = {
        "blip.nlvr2": (blip, collate(samples)),
        "blip.vqa": (decoding.vqa(), decoding.collate(decoding.questions())),
        "blip.caption": (decoding.captioner(), decoding.collate(decoding.captions())),
        "blip.retrieval": (retrieving.dense(), retrieving.collate(retrieving.samples())),
        "blip2.retrieval": (querying.dense(), retrieving.collate(retrieving.samples())),
        "clip.retrieval": (clip, collate(captioned)),
        "clip.classification": (clip, collate(captioned)),
        "siglip.classification": (siglips.dense(), siglips.collate([siglips.padded(sample) for sample in captioned])),
        "clip.embedding": (encoders.for_task(clip, "embedding"), images(captioned)),
        "siglip.embedding": (encoders.for_task(siglips.dense(), "embedding"), images(captioned)),
        "vilt.nlvr2": (vilts.dense("nlvr2"), vilts.collate(vilts.samples("nlvr2"))),
        "vilt.vqa": (vilts.dense("vqa"), vilts.collate(vilts.samples("vqa"))),
        "siglip.retrieval": (siglips.dense(), siglips.collate([siglips.padded(sample) for sample in captioned])),
    }
    dense, batch = cases[kind]
    model = drawing.attached(dense, 1e9)
    with torch.no_grad():
        trace = model(**{name: value for name, value in batch.items() if name != "labels"}).trace
    for tower in model.TOWERS:
        first, last = trace[tower][0], trace[tower][-1]
        read_out = models.family_of(model.config).read_out[tower]
        if read_out is None:  # attention pooling
            continue
        for length, positions in zip(first.entered, last.positions.split(last.left), strict=True):
            assert positions[read_out] == range(length)[read_out]
