"""The family record of CLIP."""

from madtp_cli.models.family import Family

FAMILY = Family(name="clip", tasks=("retrieval",))
