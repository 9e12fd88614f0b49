"""Encoders of frames, predictors of latents, decoders of frames: tensors in, tensors out."""
