"""Facts about BLIP that several formats need: its tasks, its tied weights, the constants of the published models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.models.blip.family import FAMILY

#: Layer-norm epsilons of Salesforce's code. The default of transformers for the image tower is ten times as large.
VISION_EPSILON, TEXT_EPSILON = (FAMILY.tower_defaults[tower]["layer_norm_eps"] for tower in ("vision", "text"))

PRETRAINED = (
    "a pre-trained BLIP: it has no NLVR2 head, and its other heads are not fine-tuned, so there is no task whose "
    "quality could be kept.\nFine-tune it first, or give a fine-tuned checkpoint such as model_base_nlvr.pth or "
    "model_base_retrieval_coco.pth."
)
WITHOUT_HEAD = "a BLIP without a task head.\nGive one that is fine-tuned for a task, such as model_base_nlvr.pth."
BLIP_2 = (
    "a BLIP-2, which has a Q-Former between the image tower and a language model.\n"
    "Give a folder of transformers' Blip2ForImageTextRetrieval, or a BLIP such as model_base_caption_capfilt_large.pth."
)
ALBEF = (
    "an ALBEF (or TCL), whose text tower attends to the image only in its later blocks.\n"
    "Give a BLIP, such as model_base_nlvr.pth or model_base_retrieval_coco.pth."
)
#: Cross-attention of the text tower; the number is that of the block. ALBEF's pre-trained tower is inside `bert`.
CROSS_ATTENTION = re.compile(r"^text_encoder\.(?:bert\.)?encoder\.layer\.(\d{1,6})\.crossattention")
TEXT_ONLY = "the text part of a BLIP, which has no image tower to prune.\nGive the whole checkpoint."
IMAGE_ONLY = "the image tower of a BLIP alone, which has no task.\nGive the whole checkpoint."


def blip_task(keys: Iterable[str]) -> tuple[str, str | None]:
    """Return the task of a BLIP, and why it cannot be compressed (None if it can).

    Args:
        keys: Names of its tensors, Salesforce's or transformers'.
    """
    keys = tuple(keys)
    parts = {key.split(".")[0] for key in keys}
    if {"Qformer", "qformer", "query_tokens"} & parts:
        return "blip-2", BLIP_2
    if "visual_encoder" in parts and _is_albef(keys):
        return "albef", ALBEF
    if "cls_head" in parts or any(".crossattention.self0." in key for key in keys):
        return "nlvr2", None
    if not {"visual_encoder", "vision_model"} & parts:
        return "text", TEXT_ONLY
    if not {"text_encoder", "text_decoder", "text_model"} & parts:
        return "images", IMAGE_ONLY
    if "itm_head" in parts:
        return ("pretraining", PRETRAINED) if "text_decoder" in parts else ("retrieval", None)
    if "text_decoder" in parts:
        return ("vqa" if "text_encoder" in parts else "caption"), None
    return "features", WITHOUT_HEAD


def _is_albef(keys: Iterable[str]) -> bool:
    """Return whether the text tower is ALBEF's: for masked words, or with cross-attention from a later block on.

    In every BLIP with cross-attention the first block has it.
    """
    blocks = {int(match[1]) for key in keys if (match := CROSS_ATTENTION.match(key))}
    return any(key.startswith("text_encoder.bert.") for key in keys) or (bool(blocks) and 0 not in blocks)


def text_convention(task: str, overrides: CheckpointOverrides, *, transformers: bool) -> tuple[dict[str, str], str]:
    """Return the field of the configuration that states how texts begin, and the note about it.

    Salesforce's retrieval class matches texts that begin with [ENC], and its captions have a prompt. transformers'
    classes keep [CLS] and add no prompt, and so do models that were fine-tuned with them. No file states it.

    Args:
        task: The checkpoint's task.
        overrides: What the user states; then there is no note.
        transformers: Whether transformers wrote the checkpoint.

    Returns:
        Nothing for a task without such texts.
    """
    as_in = "as in transformers' classes" if transformers else "as in Salesforce's classes for this task"
    if task == "retrieval" and overrides.match_token is None:
        token, other = ("cls", "enc") if transformers else ("enc", "cls")
        note = f"Matched texts begin with [{token.upper()}], {as_in}; if not, use --match-token {other}."
        return {"match_token": token}, note
    if task == "caption" and overrides.prompt is None:
        from madtp_cli.models.blip.towers import PROMPT  # the models of a family are imported only when they are used

        prompt = "" if transformers else PROMPT
        stated = f'Captions begin with "{prompt}"' if prompt else "Captions have no prompt"
        return {"prompt": prompt}, f"{stated}, {as_in}; if not, use --prompt TEXT."
    return {}, ""


def with_tied_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the tied weights that a file leaves out. A file may have either of the two names."""
    pairs = [*FAMILY.tied.items(), *((twin, key) for key, twin in FAMILY.tied.items())]
    absent = {key: weights[twin] for key, twin in pairs if key not in weights and twin in weights}
    return {**weights, **absent}
