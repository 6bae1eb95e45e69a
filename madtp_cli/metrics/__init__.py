"""How good answers are: one kind of answer per file, from words and numbers alone."""
