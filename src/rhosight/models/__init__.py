"""Models that are fitted, saved, loaded and asked for predictions."""
