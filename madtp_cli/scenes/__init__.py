"""The built-in data set: generated pictures with texts that are known to be true."""

#: Tasks that have built-in scenes.
TASKS = ("nlvr2", "vqa", "caption", "retrieval", "embedding")
