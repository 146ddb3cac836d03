"""What a model scored on a whole split: metrics, their intervals, plots and the files of a report."""
