"""Inference engines: each loads a bundle's network and runs it on batches.

A backend is a module with the functions ``is_available(device)`` and ``open(bundle, device)``; the latter returns an
object with a method ``run(images)``.
"""
