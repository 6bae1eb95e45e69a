"""The family record of BLIP."""

from madtp_cli.models.family import Family

FAMILY = Family(name="blip", tasks=("caption", "nlvr2", "retrieval", "vqa"))
