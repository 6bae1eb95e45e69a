"""Read, recognise, load and save checkpoints. Start reading in `load.py`."""
