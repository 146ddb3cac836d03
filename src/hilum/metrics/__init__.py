"""Statistics of predictions: scores, intervals, calibration, conformal prediction, abstention. Reads no files."""
