"""Recurrent state-space models: the corrected one and the study's."""
