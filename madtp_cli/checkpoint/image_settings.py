"""The image settings next to a checkpoint: every field that changes the pixels is followed or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from transformers.image_utils import PILImageResampling

from madtp_cli.checkpoint import invalid_fields
from madtp_cli.checkpoint.files import exists, read_json
from madtp_cli.checkpoint.open_clip_settings import preprocess_settings
from madtp_cli.errors import CheckpointError
from madtp_cli.models.family import ImageSettings

#: Files next to a checkpoint that may state its image settings, transformers' and OpenCLIP's files; and the keys under
#: which some of these files hold the settings.
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json", "preprocess_config.json", "open_clip_config.json")
SETTINGS_KEYS = ("image_processor", "preprocess_cfg")
#: Switches of transformers' image processors that are followed; another one that is on is refused.
SWITCHES = frozenset({"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_pad"})

Side = Annotated[int, Field(ge=1, le=100_000)]


class _Size(BaseModel):
    """The size of a resized or cropped image, as transformers states it."""

    model_config = ConfigDict(extra="forbid")

    shortest_edge: Side | None = None
    height: Side | None = None
    width: Side | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"shortest_edge": value}
        return value

    @model_validator(mode="after")
    def _is_square(self) -> _Size:
        if self.height != self.width or (self.height is None) == (self.shortest_edge is None):
            raise ValueError("give shortest_edge, or height and width of a square")
        return self

    @property
    def side(self) -> int:
        return self.shortest_edge or self.height or 1


class _Fields(BaseModel):
    """The fields of a file with image settings that change the pixels."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    mean: tuple[float, float, float] | None = None
    std: Annotated[tuple[float, float, float] | None, Field()] = None
    resample: int | str | None = None
    do_resize: bool | None = None
    do_center_crop: bool | None = None
    do_rescale: bool | None = None
    do_normalize: bool | None = None
    rescale_factor: float | None = Field(default=None, gt=0)
    size: _Size | None = None
    crop_size: _Size | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_one_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        names = {"image_mean": "mean", "image_std": "std", "interpolation": "resample"}
        return {names.get(name, name): content for name, content in value.items()}

    @model_validator(mode="after")
    def _can_be_followed(self) -> _Fields:
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std is {min(self.std)}, but it must be above 0")
        if self.do_resize is False:
            raise ValueError("do_resize is false, but images must have the size of the model")
        for name, value in (self.model_extra or {}).items():
            if name.startswith("do_") and value and name not in SWITCHES:
                raise ValueError(f"madtp does not know the switch {name[:40]}")
        return self


def image_settings(
    source: Path, default: ImageSettings | None = None, modes: Sequence[str] = ("shortest", "squash")
) -> ImageSettings:
    """Return a checkpoint's image settings from a settings file next to it; the image size is the checkpoint's own.

    Args:
        source: The checkpoint, a file or a folder.
        default: Values of settings that no file states; None for those of CLIP.
        modes: The ways of resizing that the model's family supports; its own is first.

    Raises:
        CheckpointError: A settings file is broken, has invalid numbers or cannot be followed.
    """
    default = default or ImageSettings()
    folder, settings = source if source.is_dir() else source.parent, default
    for file in [folder / name for name in IMAGE_FILES if exists(folder / name)]:
        try:
            settings = _read_settings(read_json(file), default, modes, file)
        except ValidationError as error:
            field = invalid_fields.first_of(error)
            raise CheckpointError(
                f"{file} has no readable image settings: {'.'.join(field.path) or 'its settings'}: {field.reason}.\n"
                "Correct the file or move it away."
            ) from error
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise CheckpointError(
                f"{file} has no readable image settings ({str(error)[:100]}).\nCorrect the file or move it away."
            ) from error
        if settings != default:
            break
    return settings


def _read_settings(content: dict[str, Any], default: ImageSettings, modes: Sequence[str], file: Path) -> ImageSettings:
    stated = next((content[name] for name in SETTINGS_KEYS if name in content), content)
    if stated is not content and "preprocess_cfg" in content:
        preprocess_settings(content, file)
    fields = _Fields.model_validate(stated)
    resize, share = _resize(fields, modes[0])
    if "resize_mode" in stated:
        resize = str(stated["resize_mode"])
    if resize not in modes:
        raise ValueError(f"images are resized by {resize[:40]}, but this model supports only {' or '.join(modes)}")
    return replace(
        default,
        mean=fields.mean or default.mean,
        std=fields.std or default.std,
        resample=default.resample if fields.resample is None else _resample(fields.resample),
        resize=None if resize == modes[0] else resize,
        edge_share=share,
        normalize=default.normalize if fields.do_normalize is None else fields.do_normalize,
        rescale_factor=1.0 if fields.do_rescale is False else fields.rescale_factor or default.rescale_factor,
    )


def _resample(value: int | str) -> int:
    return int(PILImageResampling[value.upper()] if isinstance(value, str) else PILImageResampling(value))


def _resize(fields: _Fields, own: str) -> tuple[str, float]:
    """Return the way of resizing, and the shorter side before the crop divided by the side of the crop."""
    size, crop = fields.size, fields.crop_size
    crops = own == "shortest" if fields.do_center_crop is None else fields.do_center_crop
    if size is None:
        return (own if fields.do_center_crop is None else "shortest" if crops else "squash"), 1.0
    if not crops:
        if size.shortest_edge and fields.do_center_crop is False:
            raise ValueError("images are resized by their shorter side and not cropped, so they are not square")
        return "squash", 1.0
    if size.height:  # squashed first; a crop of the whole image changes nothing
        if crop is not None and crop.side != size.height:
            raise ValueError("images are squashed and then cropped to another size")
        return "squash", 1.0
    share = size.side / (crop.side if crop else size.side)
    if share < 1:
        raise ValueError("images are cropped to more than their size")
    return "shortest", share
