"""Plots of a run and of an evaluated split, as PNG and SVG files.

Only matplotlib's object interface is used (a Figure on an Agg canvas), so that nothing depends on a display or on
global state. Colors are those of Okabe & Ito (2008), distinct with any common color vision; curves differ in their
dashes too.
"""

from hilum.evaluation.plots.overlays import sample_overlays
from hilum.evaluation.plots.training import training_curves, training_plots
from hilum.evaluation.plots.write import write_plots

__all__ = ["sample_overlays", "training_curves", "training_plots", "write_plots"]
