"""The fields of a `config.json` and their ranges. Fields that no model reads are not checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from madtp_cli import methods, models
from madtp_cli.checkpoint import invalid_fields
from madtp_cli.errors import CheckpointError

#: Errors that invalid settings raise in transformers and torch.
INVALID = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)

#: The limits are far above every published model.
Size = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Layers = Annotated[int, Field(ge=1, le=1_000, strict=True)]
TokenId = Annotated[int, Field(ge=-1, le=10_000_000, strict=True)]


#: Largest parameter of a method that is no whole number, far above every sensible one.
LARGEST = 1e9
#: Parameters of methods that can be 0; `queries` 0 means all.
MAY_BE_ZERO = ("queries", "proportional")


class _Fields(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)


class _Tower(_Fields):
    hidden_size: Size | None = None
    intermediate_size: Size | None = None
    num_hidden_layers: Layers | None = None
    num_attention_heads: Size | None = None
    layer_norm_eps: float | None = Field(default=None, gt=0, le=1)
    hidden_act: str | None = None
    projection_dim: Size | None = None

    @field_validator("hidden_act")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        from transformers.activations import ACT2FN

        if name is not None and name not in ACT2FN:
            raise ValueError("transformers has no activation of this name")
        return name

    @model_validator(mode="after")
    def _divides(self) -> _Tower:
        if self.hidden_size and self.num_attention_heads and self.hidden_size % self.num_attention_heads:
            raise ValueError(f"the width {self.hidden_size} does not divide into {self.num_attention_heads} heads")
        return self


class _Vision(_Tower):
    image_size: Annotated[int, Field(ge=1, le=16_384, strict=True)] | None = None
    patch_size: Annotated[int, Field(ge=1, le=16_384, strict=True)] | None = None


class _Text(_Tower):
    vocab_size: Annotated[int, Field(ge=1, le=10_000_000, strict=True)] | None = None
    max_position_embeddings: Size | None = None
    encoder_hidden_size: Size | None = None
    projection_size: Size | None = None
    bos_token_id: TokenId | None = None
    eos_token_id: TokenId | None = None
    pad_token_id: TokenId | None = None
    sep_token_id: TokenId | None = None
    label_smoothing: float | None = Field(default=None, ge=0, le=1)


class _Pruning(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    method: str = "madtp"
    threshold_scale: float = Field(default=0.0, ge=0)
    min_keep: int = Field(default=1, ge=0, le=1_000_000, strict=True)
    dictionary_size: Size = 100
    dictionary_width: Size = 768
    block_projections: bool = False
    scales: dict[str, list[Annotated[float, Field(ge=0)]]] = {}
    curve: list[Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)]] = []
    dense_gflops: float = Field(default=0.0, ge=0)
    embedding_scale: float = Field(default=0.0, ge=0)
    parameters: dict[str, Any] = {}

    @field_validator("method")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in methods.names():
            raise ValueError(f"there is no such method; the methods are {', '.join(methods.names())}")
        return name

    @model_validator(mode="after")
    def _has_parameters(self) -> _Pruning:
        defaults = {
            field.name: getattr(methods.get(self.method).PARAMETERS(), field.name)
            for field in dataclasses.fields(methods.get(self.method).PARAMETERS)
        }
        for name, value in self.parameters.items():
            if name not in defaults:
                raise ValueError(f"the method {self.method} has no parameter {name[:40]}")
            if not _allowed(value, defaults[name]) or (value == 0 and name not in MAY_BE_ZERO):
                raise ValueError(f"the parameter {name} is {str(value)[:40]}, which is out of range")
        return self


def _allowed(value: Any, default: Any) -> bool:
    """Return whether a parameter of a method can have this value, which depends on the type of its default."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if default is None:
        return value is None or (isinstance(value, int) and value >= 1)
    if isinstance(default, int):
        return isinstance(value, int) and value >= 0
    if isinstance(default, float):
        return isinstance(value, int | float) and 0 < value <= LARGEST
    return isinstance(value, type(default))


class _Config(_Fields):
    model_type: str
    task: str | None = None
    vision_config: _Vision = _Vision()
    text_config: _Text = _Text()
    projection_dim: Size | None = None
    image_text_hidden_size: Size | None = None
    merge_from: Annotated[int, Field(ge=0, le=1_000, strict=True)] | None = None
    logit_scale_init_value: float | None = None
    trained_on: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    match_token: Literal["enc", "cls"] | None = None
    prompt: Annotated[str, Field(max_length=10_000)] | None = None
    text_projection_bias: bool = False
    madtp: _Pruning | None = None

    @model_validator(mode="after")
    def _has_scales_for_its_blocks(self) -> _Config:
        kind = f"{self.model_type.removeprefix(models.PREFIX)}.{self.task}"
        if self.madtp is None or kind not in models.kinds():
            return self
        for tower, scales in self.madtp.scales.items():
            if tower not in models.get(kind).TOWERS:
                raise ValueError(f"madtp.scales has a tower {tower[:40]}, which the model does not have")
            layers = getattr(self, f"{tower}_config").num_hidden_layers
            if layers is not None and len(scales) != layers:
                raise ValueError(f"madtp.scales has {len(scales)} numbers for the {layers} blocks of {tower}")
        return self


def require_valid(config: Mapping[str, Any], where: Path) -> None:
    """Raise CheckpointError unless the fields that a model reads have possible values; the message names the field."""
    try:
        _Config.model_validate(dict(config))
    except ValidationError as error:
        path, value, reason = invalid_fields.first_of(error)
        stated = "" if value.startswith("{") else f" is {value}"
        raise CheckpointError(
            f"{where} is invalid: {'.'.join(path) or 'a setting'}{stated} ({reason}).\n"
            "Correct the file, or copy or download it again."
        ) from error
