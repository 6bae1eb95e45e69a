"""The files of a tokenizer, and what it computes: possible values, word pieces of the checkpoint, special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from madtp_cli.checkpoint import invalid_fields
from madtp_cli.checkpoint.files import LARGEST_JSON, exists, read_json
from madtp_cli.errors import CheckpointError
from madtp_cli.models.family import TokenizerRecord

CONFIG, FAST = "tokenizer_config.json", "tokenizer.json"
#: Files that transformers reads for a tokenizer.
FILES = (CONFIG, FAST, "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json",
         "merges.txt")  # fmt: skip
#: Shortest text that a tokenizer must be able to give: the first token, a word and the last token.
LEAST_TOKENS = 3
#: How T5's extra word pieces begin. No text contains them, and checkpoints have no embeddings of them.
UNUSED = "<extra_id_"
#: A text with more tokens than `LEAST_TOKENS`, and a short one.
LONG, SHORT = "a b c d e f", "a"


class _Token(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    content: str


def _is_whole(number: float) -> float:
    if number != int(number):
        raise ValueError("it must be a whole number")
    return number


Token = Annotated[str, Field(min_length=1)] | _Token | None
#: transformers writes 10^30 where there is no limit.
Length = Annotated[float, Field(ge=LEAST_TOKENS, allow_inf_nan=False, strict=True), AfterValidator(_is_whole)]


class _Config(BaseModel):
    """The fields of tokenizer_config.json that change what a tokenizer computes."""

    model_config = ConfigDict(extra="allow", strict=True)

    tokenizer_class: str | None = None
    model_max_length: Length | None = None
    padding_side: Literal["right"] | None = None
    truncation_side: Literal["right"] | None = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    pad_token: Token = None
    unk_token: Token = None
    cls_token: Token = None
    sep_token: Token = None
    bos_token: Token = None
    eos_token: Token = None
    mask_token: Token = None
    added_tokens_decoder: dict[Annotated[str, Field(pattern=r"^[0-9]{1,8}$")], _Token] = {}


def require_valid_files(folder: Path) -> None:
    """Check the files of a tokenizer before they are read.

    Raises:
        CheckpointError: A file is no regular file, too large or no JSON, or has an impossible value.
    """
    for path in [folder / name for name in FILES if exists(folder / name)]:
        if path.suffix == ".json":
            content = read_json(path)
            if path.name == CONFIG:
                _require_valid(content, path)
        elif (size := path.stat().st_size) > LARGEST_JSON:
            raise CheckpointError(
                f"{path} has {size:,} bytes, more than {LARGEST_JSON:,} for a tokenizer.\nCopy it again."
            )


def _require_valid(content: dict[str, Any], path: Path) -> None:
    try:
        _Config.model_validate(content)
    except ValidationError as error:
        field = invalid_fields.first_of(error)
        raise CheckpointError(
            f"{path} is invalid: {field.path[0]} is {field.value} ({field.reason}).\n"
            "Correct the file, or copy or download it again."
        ) from error


def require_usable(tokenizer: Any, record: TokenizerRecord, pieces: int) -> None:
    """Check what a tokenizer computes.

    Args:
        tokenizer: The tokenizer, after `TokenizerRecord.fit`.
        record: Names the special tokens that begin and end a text.
        pieces: Number of word embeddings of the checkpoint.

    Raises:
        ValueError: The reason, as the end of a sentence that begins with the tokenizer.
    """
    unused = (UNUSED, *record.unused)
    vocabulary = {piece: number for piece, number in tokenizer.get_vocab().items() if not piece.startswith(unused)}
    beyond = max(vocabulary, key=lambda piece: vocabulary[piece])
    if vocabulary[beyond] >= pieces:
        number = f"{vocabulary[beyond]:,}"
        raise ValueError(f"gives the word piece {beyond[:60]!r} the number {number}, but the checkpoint has {pieces:,}")
    if len(set(vocabulary.values())) < len(vocabulary):
        raise ValueError("gives two word pieces the same number")
    if tokenizer.pad_token_id is None:
        raise ValueError("has no padding token")
    if any(record.ends):
        _require_ends(tokenizer, record)


def require_stated_numbers(tokenizer: Any, folder: Path) -> None:
    """Check that added word pieces have the numbers that tokenizer.json states; the library may give them others.

    Args:
        tokenizer: The tokenizer as it was read.
        folder: Its folder.

    Raises:
        ValueError: The reason, as the end of a sentence that begins with the tokenizer.
    """
    if not exists(folder / FAST):
        return
    for added in read_json(folder / FAST).get("added_tokens") or []:
        piece, number = added["content"], added["id"]
        if (used := tokenizer.convert_tokens_to_ids(piece)) != number:
            raise ValueError(f"gives {piece[:60]!r} the number {used}, but its {FAST} states {str(number)[:20]}")


def _require_ends(tokenizer: Any, record: TokenizerRecord) -> None:
    """Check that a text, also one that is cut, begins and ends with its special tokens, and padding follows it."""
    encoded = tokenizer([LONG, SHORT], padding=True, truncation=True, max_length=LEAST_TOKENS + 1)
    forget_lengths(tokenizer)
    for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True):
        real = sum(mask)
        if mask[:real] != [1] * real or len(ids) > LEAST_TOKENS + 1:
            raise ValueError("does not put the padding after a text")
        for name, found in zip(record.ends, (ids[0], ids[real - 1]), strict=True):
            if name is not None and (found != getattr(tokenizer, f"{name}_id") or real < LEAST_TOKENS):
                raise ValueError(f"does not put its {name} around a text")


def forget_lengths(tokenizer: Any) -> None:
    """Undo what a call with truncation or padding left in a tokenizer: it would be saved in tokenizer.json."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
