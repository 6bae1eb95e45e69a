"""Processors: the image preparation and the tokenizer that belong to a checkpoint.

The original checkpoint files come without a tokenizer. It is looked for next to the checkpoint and in the local Hugging
Face cache, and never downloaded. The record of the model family states which files and settings are right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from huggingface_hub import try_to_load_from_cache

from madtp_cli import models
from madtp_cli.checkpoint import tokenizer_files
from madtp_cli.checkpoint.image_settings import image_settings
from madtp_cli.errors import CheckpointError
from madtp_cli.models.family import Family, ImageSettings, TokenizerRecord

#: A tokenizer or a processor of transformers, of the class that the family names.
Tokenizer: TypeAlias = Any
Processor: TypeAlias = Any


def find(source: Path, tokenizer_folder: Path | None, config: Any) -> Processor:
    """Return the processor of a checkpoint.

    Args:
        source: The checkpoint, a file or a folder.
        tokenizer_folder: Folder of the tokenizer; None to look for it next to the checkpoint and in the cache.
        config: The checkpoint's configuration.

    Raises:
        CheckpointError: There is no tokenizer, it does not belong to the checkpoint, or a file with image settings is
            invalid.
    """
    family = models.family_of(config)
    settings = image_settings(source, family.image_settings, family.resize_modes)
    tokenizer = None if config.task in family.image_only else find_tokenizer(source, tokenizer_folder, config)
    return build(config, tokenizer, settings)


def tokenizer_of(processor: Processor) -> Tokenizer | None:
    """Return the tokenizer of a processor; None for the image processor of an image encoder."""
    return getattr(processor, "tokenizer", None)


def build(config: Any, tokenizer: Tokenizer | None, settings: ImageSettings | None = None) -> Processor:
    """Build the processor of a configuration's family for the configuration's image size.

    Args:
        config: A model's configuration.
        tokenizer: The tokenizer; None for the image processor of an image encoder.
        settings: Image settings; None for those of the published models.
    """
    family = models.family_of(config)
    made = family.build_processor(tokenizer, config.vision_config.image_size, settings or family.image_settings)
    return family.task_processor(made, config.task)


def find_tokenizer(source: Path, tokenizer_folder: Path | None, config: Any) -> Tokenizer:
    """Return the tokenizer of a checkpoint.

    A broken tokenizer near the checkpoint is an error. One that belongs to another checkpoint is passed over.

    Args:
        source: The checkpoint, a file or a folder.
        tokenizer_folder: Folder of the tokenizer; None to look for it next to the checkpoint and in the cache.
        config: The checkpoint's configuration.

    Raises:
        CheckpointError: There is no tokenizer, it is broken, or it does not belong to the checkpoint.
    """
    family, text_config = models.family_of(config), config.text_config
    record = family.tokenizer
    if tokenizer_folder is not None:
        if not _has_tokenizer(tokenizer_folder, record):
            raise CheckpointError(
                f"{tokenizer_folder} has no tokenizer: there is neither {_file_names(record, ' nor ')}.\n"
                "Give the folder that has these files."
            )
        return _read_and_fit(tokenizer_folder, record, text_config)
    folders = [folder for folder in _folders_near(source) if _has_tokenizer(folder, record)]
    if cached := _cached_folder(record, text_config.vocab_size):
        folders.append(cached)
    first_error = None
    for folder in folders:
        try:
            return _read_and_fit(folder, record, text_config)
        except _OtherTokenizerError as error:
            first_error = first_error or error
    raise first_error or _not_found(source, text_config.vocab_size, family)


def special_ids(config: Any, tokenizer: Tokenizer | None) -> dict[str, int]:
    """Return the fields of a configuration's text part that depend on the tokenizer, such as the end-of-text token."""
    return {} if tokenizer is None else models.family_of(config).tokenizer.special_ids(tokenizer)


def _folders_near(source: Path) -> Iterator[Path]:
    """Yield the folders that may hold a checkpoint's tokenizer, in order of preference."""
    if source.is_dir():
        yield source
        return
    yield source.with_name(source.stem + "-tokenizer")
    yield source.with_name("tokenizer")
    yield source.parent


def _has_tokenizer(folder: Path, record: TokenizerRecord) -> bool:
    return any(all(os.path.lexists(folder / name) for name in names) for names in record.files)


def _file_names(record: TokenizerRecord, separator: str) -> str:
    return separator.join(" with ".join(names) for names in record.files)


class _OtherTokenizerError(CheckpointError):
    """A tokenizer can be read, but belongs to another checkpoint."""


def _read_and_fit(folder: Path, record: TokenizerRecord, text_config: Any) -> Tokenizer:
    tokenizer_files.require_valid_files(folder)
    try:
        tokenizer = record.read(folder)
        len(tokenizer)
    except Exception as error:  # damaged files raise any error, KeyError among others
        raise _unreadable(folder, error) from error
    try:
        record.fit(tokenizer, text_config)
    except ValueError as error:
        raise _OtherTokenizerError(_unfit(folder, error)) from error
    except Exception as error:  # as above
        raise _unreadable(folder, error) from error
    try:
        tokenizer_files.require_stated_numbers(tokenizer, folder)
        tokenizer_files.require_usable(tokenizer, record, text_config.vocab_size)
    except ValueError as error:
        raise CheckpointError(_unfit(folder, error)) from error
    except Exception as error:  # as above, when it encodes a text
        raise _unreadable(folder, error) from error
    tokenizer.model_max_length = min(tokenizer.model_max_length, text_config.max_position_embeddings)
    return tokenizer


def _unfit(folder: Path, error: Exception) -> str:
    return f"The tokenizer in {folder} {error}.\nGive the checkpoint's own with --tokenizer DIR."


def _unreadable(folder: Path, error: Exception) -> CheckpointError:
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:150]
    return CheckpointError(f"The tokenizer in {folder} is unreadable ({reason}).\nCopy its files again.")


def _cached_folder(record: TokenizerRecord, vocabulary: int) -> Path | None:
    """Return the folder of the published tokenizer in the Hugging Face cache; None if it was never downloaded."""
    for repository in record.repositories.get(vocabulary, ()):
        for names in record.files:
            files = [try_to_load_from_cache(repository, name) for name in names]
            if all(isinstance(file, str) for file in files):
                return Path(str(files[0])).parent
    return None


def _not_found(source: Path, vocabulary: int, family: Family) -> CheckpointError:
    record = family.tokenizer
    places = f"{source.stem}-tokenizer/, tokenizer/ or {source.parent}" if source.is_file() else str(source)
    message = (
        f"No tokenizer of {vocabulary:,} word pieces for {source}: "
        f"there is no {_file_names(record, ' or ')} in {places}."
    )
    if vocabulary in record.repositories:
        command = f"hf download {record.repositories[vocabulary][0]} {' '.join(record.files[-1])}"
        return CheckpointError(f"{message}\nDownload it once with: {command}")
    return CheckpointError(f"{message}\nGive the checkpoint's own with --tokenizer DIR.")
