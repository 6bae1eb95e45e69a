"""BLIP-2 for retrieval: a wide image tower, and a Q-Former whose queries attend to the image."""
