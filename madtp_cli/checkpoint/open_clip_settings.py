"""The content of an `open_clip_config.json`: its fields, their ranges, and what cannot be followed.

A field that is not listed here changes the model in a way that madtp does not know, so it is refused by its name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from madtp_cli.checkpoint import invalid_fields, siglip_trunks
from madtp_cli.errors import CheckpointError

#: A class of settings.
Kind = TypeVar("Kind", bound=BaseModel)
#: A size, and the number of a token. The limits are far above every published model.
Size = Annotated[int, Field(ge=1, le=1_000_000)]
TokenId = Annotated[int, Field(ge=0, le=10_000_000)]
Layers = Annotated[int, Field(ge=1, le=1_000)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
Colour = tuple[float, float, float]
Deviation = Annotated[float, Field(gt=0)]

#: Why a model of OpenCLIP cannot be used, by a field of its parts.
COCA = "a CoCa of OpenCLIP (multimodal_cfg), whose text decoder writes captions.\nGive a CLIP with two plain towers."
HUGGING_FACE_TEXT = (
    "an OpenCLIP model whose text tower is {name} of Hugging Face (hf_model_name).\n"
    "Give a model with OpenCLIP's own text tower."
)
CLIPA = (
    "a CLIPA of OpenCLIP (no_ln_pre and no_causal_mask), whose towers differ from CLIP's.\n"
    "Give a model with OpenCLIP's plain towers, such as ViT-B-32."
)
RESNET = "a ResNet CLIP of OpenCLIP (layers is a list), which has no tokens to prune.\nGive a ViT model."
TIMM = (
    "{kind} (image tower {name} of timm), {why}.\n"
    "Give a model with OpenCLIP's own ViT, such as ViT-B-32, or a SigLIP of fixed resolution."
)
#: Image towers of timm that cannot be run: a part of the name, what the model is, and the reason.
TIMM_TOWERS = (
    ("fastvit", "a MobileCLIP", "which is convolutional and has no tokens to prune"),
    ("_mci_", "a MobileCLIP", "which begins with convolutions and pools by average"),
    ("eva", "an EVA-CLIP", "whose blocks differ from those of CLIP"),
    ("convnext", "a ConvNeXt CLIP", "which is convolutional and has no tokens to prune"),
    ("naflex", "a SigLIP 2 for images of any size (NaFlex)", "whose number of patches changes with each image"),
    ("_gap_", "a SigLIP without attention pooling", "which averages its tokens"),
    ("", "an OpenCLIP model", "which is no plain vision transformer"),
)


class Settings(BaseModel):
    """A part of the config. A field that it does not have is refused."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False, frozen=True)


class _Norm(Settings):
    eps: Epsilon = 1e-5


class Activation(Settings):
    """The form of GELU."""

    approximate: Literal["none", "tanh"] = "none"


class TowerSettings(Settings):
    """Fields of both towers. A field whose type has one value changes the model if it has another value."""

    layers: Layers = 12
    mlp_ratio: float = Field(default=4.0, gt=0, le=100)
    norm_kwargs: _Norm | None = None
    act_kwargs: Activation | None = None
    output_tokens: bool | None = None
    ls_init_value: None = None
    final_ln_after_pool: Literal[False] | None = None
    block_type: None = None
    qk_norm: Literal[False] | None = None
    scaled_cosine_attn: Literal[False] | None = None
    scale_heads: Literal[False] | None = None
    scale_attn_inner: Literal[False] | None = None
    scale_attn: Literal[False] | None = None
    scale_fc: Literal[False] | None = None


class VisionSettings(TowerSettings):
    """A built-in ViT."""

    image_size: Size | tuple[Size, Size] = 224
    width: Size = 768
    head_width: Size = 64
    patch_size: Size | tuple[Size, Size] = 16
    patch_dropout: float | None = None
    attentional_pool: Literal[False] | None = None
    attn_pooler_queries: Any = None
    attn_pooler_heads: Any = None
    no_ln_pre: Literal[False] | None = None
    pos_embed_type: Literal["learnable"] = "learnable"
    pool_type: Literal["tok"] = "tok"
    timm_model_name: None = None
    timm_model_pretrained: Any = None
    timm_pool: Any = None
    timm_proj: Any = None
    timm_proj_bias: Any = None
    timm_drop: Any = None
    timm_drop_path: Any = None


class _Tokenizer(Settings):
    clean: Literal["lower", "whitespace"] | None = None
    strip_sep_token: Literal[False] | None = None


class TextSettings(TowerSettings):
    """A built-in text tower."""

    context_length: Size = 77
    vocab_size: Size = 49_408
    width: Size = 512
    heads: Size = 8
    pool_type: Literal["argmax", "eos"] = "argmax"
    eos_id: TokenId | None = None
    pad_id: TokenId = 0
    proj_bias: bool = False
    proj_type: Literal["linear"] = "linear"
    hf_tokenizer_name: str | None = None
    tokenizer_kwargs: _Tokenizer | None = None
    embed_cls: Literal[False] | None = None
    no_causal_mask: Literal[False] | None = None
    use_pad_mask: Literal[False] | None = None
    correct_cls_mask: bool | None = None
    hf_model_name: None = None
    hf_model_pretrained: Any = None
    hf_proj_type: Any = None
    hf_pooler_type: Any = None


class ModelSettings(Settings):
    """A CLIP of OpenCLIP with built-in towers."""

    embed_dim: Size
    vision_cfg: VisionSettings
    text_cfg: TextSettings
    quick_gelu: bool = False
    custom_text: bool = False
    nonscalar_logit_scale: bool | None = None
    init_logit_scale: float | None = None
    init_logit_bias: None = None
    cast_dtype: Any = None
    output_dict: Any = None


class SiglipVisionSettings(Settings):
    """An image tower of timm that SigLIP uses. Its sizes follow from its name."""

    timm_model_name: str
    image_size: Size | tuple[Size, Size] = 224
    timm_model_pretrained: Any = None
    timm_pool: Literal["map"]
    timm_proj: Literal["none", ""] | None
    timm_drop: Any = None
    timm_drop_path: Any = None


class _SiglipTokenizer(_Tokenizer):
    clean: Literal["canonicalize", "lower", "whitespace"] | None = None  # type: ignore[assignment]


class SiglipTextSettings(TextSettings):
    """SigLIP's text tower: without a causal mask, and read at the last position."""

    pool_type: Literal["last"]  # type: ignore[assignment]
    no_causal_mask: Literal[True]  # type: ignore[assignment]
    tokenizer_kwargs: _SiglipTokenizer | None = None


class SiglipSettings(ModelSettings):
    """A SigLIP of OpenCLIP."""

    vision_cfg: SiglipVisionSettings  # type: ignore[assignment]
    text_cfg: SiglipTextSettings
    init_logit_bias: float  # type: ignore[assignment]


class PreprocessSettings(Settings):
    """How OpenCLIP prepares images for this model."""

    mean: Colour | None = None
    std: tuple[Deviation, Deviation, Deviation] | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    size: Size | tuple[Size, Size] | None = None
    mode: Literal["RGB"] = "RGB"
    fill_color: Any = None


def refusal(content: Any) -> str | None:
    """Return why a model of OpenCLIP has a tower that cannot be pruned, by name; None if it has not."""
    model = content.get("model_cfg") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        return None
    vision, text = (part if isinstance(part, dict) else {} for part in map(model.get, ("vision_cfg", "text_cfg")))
    if model.get("multimodal_cfg") is not None:
        return COCA
    if (name := vision.get("timm_model_name")) and siglip_trunks.find(name) is None:
        kind, why = next((kind, why) for part, kind, why in TIMM_TOWERS if part in str(name))
        return TIMM.format(kind=kind, name=str(name)[:60], why=why)
    if isinstance(vision.get("layers"), list):
        return RESNET
    if _is_clipa(vision, text):
        return CLIPA
    name = text.get("hf_model_name")
    return HUGGING_FACE_TEXT.format(name=str(name)[:60]) if name else None


def timm_name(content: Any) -> str | None:
    """Return the name of the image tower if it is one of timm."""
    model = content.get("model_cfg") if isinstance(content, dict) else None
    vision = model.get("vision_cfg") if isinstance(model, dict) else None
    return str(vision.get("timm_model_name")) if isinstance(vision, dict) and vision.get("timm_model_name") else None


def _is_clipa(vision: dict[str, Any], text: dict[str, Any]) -> bool:
    return bool(vision.get("no_ln_pre")) and bool(text.get("no_causal_mask"))


def model_settings(content: Any, where: Any, kind: type[Kind]) -> Kind:
    """Return the settings of the model.

    Args:
        content: Content of the config.
        where: Its path, for messages.
        kind: Class of the settings.

    Raises:
        CheckpointError: A field is absent, invalid or cannot be followed; the message names it.
    """
    if not isinstance(content, dict) or "model_cfg" not in content:
        raise CheckpointError(f"{where} has no model_cfg.\nCopy or download the file again.")
    return _validated(kind, content["model_cfg"], where, "model_cfg")


def preprocess_settings(content: Any, where: Any) -> PreprocessSettings:
    """Return the settings of the images.

    Raises:
        CheckpointError: As `model_settings`.
    """
    return _validated(PreprocessSettings, content.get("preprocess_cfg") or {}, where, "preprocess_cfg")


def _validated(kind: type[Any], content: Any, where: Any, name: str) -> Any:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        path, value, reason = invalid_fields.first_of(error)
        raise CheckpointError(
            f"{where}: {'.'.join([name, *path])} is {value}, which madtp cannot follow ({reason}).\n"
            "Correct the file, or give a model with OpenCLIP's plain towers."
        ) from error
