"""Train networks: the loop, the two stages, folds, contrastive pre-training."""
