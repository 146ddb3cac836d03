"""Train the learned input check (PyTorch): samples, augmentation, network and loop."""
