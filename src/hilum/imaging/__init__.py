"""Reading and preprocessing of radiographs. Preprocessing exists here and nowhere else."""
