"""Find, index, check, split and cache the images of a dataset. Decoding is in ``hilum.imaging``."""
