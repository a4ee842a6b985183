"""Build datasets from sources: batches, workers, and merging with what exists."""
