"""Recipes, pre-trained encoders and the networks that are built from them."""
