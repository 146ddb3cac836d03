"""Images out of a PACS and answers back into it, over DICOMweb (PS3.18): QIDO-RS, WADO-RS, STOW-RS."""
