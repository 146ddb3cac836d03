"""Bundles: what training leaves and everything else reads. Never imports torch."""
