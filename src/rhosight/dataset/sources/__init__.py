"""Sources of materials: each yields densities and labels for a dataset."""
