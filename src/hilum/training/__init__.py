"""Training: the loop, its checkpoints, its journal, and the one verb that runs the whole path."""
