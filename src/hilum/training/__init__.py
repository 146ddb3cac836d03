"""Training (PyTorch): datasets, augmentation, training loop, checkpoints and journal.

The whole pipeline from a dataset to a bundle is in hilum.pipeline.
"""
