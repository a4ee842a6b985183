"""What models read: images, texts and descriptors of a crystal, as arrays and tensors."""
