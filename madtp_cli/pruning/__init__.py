"""The papers on bare tensors: dictionary, importance, thresholds, density peaks, merging.

Nothing here knows a model. Samples lie in a padded layout [batch, longest, ...] with a bool mask [batch, longest] that
is true for a sample's prunable tokens. The mask may have any shape, so packed and padded execution share these
functions. Scores are float32: in bfloat16 neighbouring scores of 577 tokens are equal.
"""
