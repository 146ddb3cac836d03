"""Training of the learned input check: its examples, network and loop (PyTorch)."""
