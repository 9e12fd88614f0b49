"""What joint-embedding models are trained by, one objective per module, each a function of tensors."""
