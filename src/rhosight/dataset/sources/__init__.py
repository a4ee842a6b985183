"""Where materials come from; each module ends in densities and labels for a dataset."""
