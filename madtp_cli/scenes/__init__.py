"""The built-in data set: generated pictures with texts that are known to be true."""
