"""Run a bundle on files, folders and arrays. Never imports torch unless the PyTorch backend is used."""
