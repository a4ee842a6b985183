"""Models to compare with: composition, promolecule, density statistics, CHGNet."""
