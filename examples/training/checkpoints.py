"""Model classes and sizes of the example checkpoints, their first weights, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipModel

import madtp_cli.models
from examples import original_names
from madtp_cli.checkpoint import processors
from madtp_cli.checkpoint.formats import salesforce_blip
from madtp_cli.checkpoint.position_embeddings import resize_positions
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.scenes import generator

PATCH_SIZE = 8
#: Text positions of the SigLIP, which every text is padded to, as in the published models.
SIGLIP_POSITIONS = 64
#: Name of the data set, as the checkpoints state it.
SCENES = "madtp scenes"
#: Name of the model class of each example, as in `madtp_cli.models`.
MODELS = {
    "vqa": "blip.vqa",
    "caption": "blip.caption",
    "retrieval": "blip.retrieval",
    "clip": "clip.retrieval",
    "siglip": "siglip.retrieval",
}
#: Size of every tower of an example, unless `build_model` changes it.
SIZES = {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 4, "intermediate_size": 512}
VISION_SIZES = SIZES | {"num_hidden_layers": 8, "image_size": generator.IMAGE_SIZE, "patch_size": PATCH_SIZE}
#: A text tower that is narrower than the image tower, as in every CLIP and in BLIP-large.
NARROW_TEXT = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256}


def draw_weights(model: nn.Module) -> None:
    """Draw the weights of all linear layers with standard deviation 1/√width.

    BERT's standard deviation of 0.02 fits width 768. With it, attention of the small examples is nearly uniform and
    they hardly learn.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)


def build_nlvr2_model(vocabulary_size: int) -> MadtpBlipForNLVR2:
    """Build the NLVR2 example with random weights."""
    vision = VISION_SIZES | {"layer_norm_eps": 1e-6, "initializer_range": 0.02}
    text = SIZES | {"intermediate_size": 256, "max_position_embeddings": 32}
    text |= {"vocab_size": vocabulary_size, "bos_token_id": vocabulary_size - 2, "sep_token_id": 3}
    model = MadtpBlipForNLVR2(MadtpBlipConfig(vision_config=vision, text_config=text, merge_from=2))
    draw_weights(model)
    return model


def build_model(example: str, vocabulary_size: int, image_size: int = generator.IMAGE_SIZE) -> Any:
    """Build one of the other examples with random weights; `example` is a key of `MODELS`."""
    model_class = madtp_cli.models.get(MODELS[example])
    vision: dict[str, Any] = VISION_SIZES | {"image_size": image_size}
    text: dict[str, Any] = SIZES | {"vocab_size": vocabulary_size, "max_position_embeddings": 48}
    if example in ("clip", "siglip", "retrieval"):
        text |= NARROW_TEXT
    if example == "siglip":
        settings: dict[str, Any] = {"trained_on": SCENES}
        text |= {"max_position_embeddings": SIGLIP_POSITIONS, "projection_size": vision["hidden_size"]}
        text |= {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    elif example == "clip":
        settings = {"projection_dim": 64}
        text |= {"bos_token_id": vocabulary_size - 2, "eos_token_id": vocabulary_size - 1}
        text |= {"pad_token_id": vocabulary_size - 1}
    else:
        settings = {"image_text_hidden_size": 64, "task": example}
        vision = vision | {"layer_norm_eps": 1e-6}
        text |= {"bos_token_id": vocabulary_size - 2, "sep_token_id": 3, "encoder_hidden_size": vision["hidden_size"]}
        # Small text towers: all five checkpoints together take less than 25 MB.
        text |= {"num_hidden_layers": 4 if example == "retrieval" else 3, "intermediate_size": 256}
    model: Any = model_class(model_class.config_class(vision_config=vision, text_config=text, **settings))
    draw_weights(model)
    return model


def load_image_tower(model: Any, example: str, source: Path) -> None:
    """Copy the image tower of the NLVR2 example into the model of another example, whose images may have another size.

    Raises:
        ValueError: The towers do not have the same tensors.
    """
    stored = torch.load(source, weights_only=True)["model"]
    renamed = {salesforce_blip.to_transformers(key): value.float() for key, value in stored.items()}
    prefix = "vision_model."
    tower = {key.removeprefix(prefix): value for key, value in renamed.items() if key.startswith(prefix)}
    positions, image_size = "embeddings.position_embedding", model.config.vision_config.image_size
    tower[positions] = resize_positions(tower[positions], image_size, PATCH_SIZE)
    if example == "clip":
        tower = to_clip_tower(tower)
    elif example == "siglip":
        tower = to_siglip_tower(tower)
    missing, unexpected = model.vision_model.load_state_dict(tower, strict=False)
    # CLIP has a layer norm before the first block, SigLIP has a pooling head, and BLIP has neither.
    missing = [key for key in missing if not key.startswith(("pre_layrnorm", "head."))]
    if missing or unexpected:
        raise ValueError(f"{source} does not fit: missing {missing}, unexpected {unexpected}")


def to_clip_tower(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of BLIP's image tower to the names of transformers' CLIP.

    CLIP splits queries, keys and values. Its patch embedding has no bias, so the position embeddings take the bias.
    """
    converted: dict[str, Tensor] = {}
    bias = tower["embeddings.patch_embedding.bias"]
    for key, value in tower.items():
        if key == "embeddings.class_embedding":
            converted[key] = value.flatten()
        elif key == "embeddings.position_embedding":
            patch_bias = torch.cat([torch.zeros_like(bias)[None], bias.expand(len(value[0]) - 1, -1)])
            converted[f"{key}.weight"] = value[0] + patch_bias
        elif ".qkv." in key:
            for name, part in zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True):
                converted[key.replace("qkv", name)] = part
        elif key != "embeddings.patch_embedding.bias":
            converted[key.replace("self_attn.projection", "self_attn.out_proj")] = value
    return converted


def to_siglip_tower(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of BLIP's image tower to the names of transformers' SigLIP, which has no [CLS] token."""
    bias = tower["embeddings.patch_embedding.bias"]
    converted = to_clip_tower(tower)
    del converted["embeddings.class_embedding"]
    positions = "embeddings.position_embedding.weight"
    return {**converted, positions: converted[positions][1:] - bias, "embeddings.patch_embedding.bias": bias}


def save_siglip(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a SigLIP in half precision as transformers writes it, with its processor and tokenizer."""
    config = SiglipConfig(
        vision_config=model.config.vision_config.to_dict(),
        text_config=model.config.text_config.to_dict(),
        trained_on=model.config.trained_on,
    )
    published = SiglipModel(config)
    published.load_state_dict(model.state_dict())
    published.half().save_pretrained(folder)
    processors.build(model.config, tokenizer).save_pretrained(folder)


def save_blip(model: Any, tokenizer: Any, file: Path, tokenizer_folder: Path, data: str = SCENES) -> None:
    """Write a BLIP with the key names of Salesforce's files, in half precision, and its tokenizer.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        file: The checkpoint.
        tokenizer_folder: The folder of the tokenizer.
        data: Name of the data set that the model was trained on.
    """
    weights = original_names.blip(_half(model))
    if hasattr(model, "temperature"):
        weights["temp"] = torch.tensor(model.temperature)
    _save(weights, tokenizer, file, tokenizer_folder, data)


def save_clip(model: Any, tokenizer: Any, file: Path, tokenizer_folder: Path, data: str = SCENES) -> None:
    """Write a CLIP with the key names of OpenAI's files, in half precision, and its tokenizer; see `save_blip`."""
    _save(original_names.clip(_half(model)), tokenizer, file, tokenizer_folder, data)


def _half(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.half() for key, value in model.state_dict().items()}


def _save(weights: dict[str, Tensor], tokenizer: Any, file: Path, tokenizer_folder: Path, data: str) -> None:
    torch.save({"model": weights, "config": {"dataset": data}}, file)
    tokenizer.save_pretrained(tokenizer_folder)
