"""Write and read bundles, the files of a trained model. Never imports torch."""
