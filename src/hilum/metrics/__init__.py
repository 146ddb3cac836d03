"""Statistics of predictions: metrics, confidence intervals, calibration, conformal prediction, abstention.

Works on arrays; files are read and written in hilum.evaluation.
"""
