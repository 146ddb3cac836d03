"""Training: data sets, augmentation, the loop, its checkpoints and its journal.

The whole path from data to a bundle is hilum.pipeline.
"""
