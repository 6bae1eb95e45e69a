"""ViLT: one stream of blocks for the words of a text and the patches of an image."""
