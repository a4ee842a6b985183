"""Inputs of models: images, texts and descriptors, as arrays and tensors."""
