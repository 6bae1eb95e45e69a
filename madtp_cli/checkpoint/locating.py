"""Find a checkpoint by its path or its name. This needs no torch, so a wrong path fails at once."""

from __future__ import annotations

import re
from pathlib import Path

from madtp_cli.config.user_paths import refuse_url
from madtp_cli.errors import CheckpointError

#: Form of a model name on the Hugging Face hub; a name with the ending of a checkpoint file is a path.
HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+(?<!\.pth)(?<!\.pt)(?<!\.bin)(?<!\.ckpt)(?<!\.safetensors)")


def locate(path: Path) -> Path:
    """Find a checkpoint by its path, or by its name in the local Hugging Face cache. Nothing is downloaded.

    Args:
        path: A file, a folder, or the name of a model on the hub, such as "Salesforce/blip-vqa-base".

    Returns:
        `path` if it exists, else the folder of the model in the cache.

    Raises:
        CheckpointError: There is no such path and no such model in the cache.
    """
    refuse_url(path, CheckpointError)
    try:
        if path.exists():
            return path
    except (OSError, ValueError) as error:  # the name is too long, or a link leads back to itself
        raise CheckpointError(f"{str(path)[:200]} cannot be read: {getattr(error, 'strerror', error)}.") from None
    advice = f"Check the path; it is relative to {Path.cwd()}."
    name = path.as_posix()
    if not HUB_NAME.fullmatch(name):
        raise CheckpointError(f"There is no file or folder {path}.\n{advice}")
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json")
    except ValueError:  # not a valid name on the hub
        config = None
    if isinstance(config, str):
        return Path(config).parent
    raise CheckpointError(
        f"There is no file or folder {path}, and no model of that name in the Hugging Face cache.\n"
        f"{advice}\nTo get a model from the hub: hf download {name}"
    )
