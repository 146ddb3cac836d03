"""Inference engines behind one seam: each opens a bundle's network and turns a batch into a BackendOutput.

A backend is one module with three names: ``is_available(device)``, ``open(bundle, device)``, and an object that has
``run(images)``.
"""
