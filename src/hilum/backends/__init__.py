"""Inference engines behind one seam: each opens a bundle's network and turns a batch into a BackendOutput."""
