"""Predict on images of a PACS and store results there, over DICOMweb (PS3.18): QIDO-RS, WADO-RS, STOW-RS."""
