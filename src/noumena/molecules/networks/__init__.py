"""Encoders and decoders of conformations, in plain torch."""
