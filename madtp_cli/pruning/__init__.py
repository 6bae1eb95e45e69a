"""The paper on bare tensors: dictionary, importance, threshold, merge. Knows no host model."""
