"""Conformations made instead of read: conformers by distance geometry, trajectories by molecular dynamics.

Both are jobs that depend on their numbers alone (:mod:`noumena.generation` runs them), so that the same seed gives the
same bytes whatever the number of processes, and after a kill. RDKit (``pip install 'noumena[molecules]'``) and OpenMM
(``pip install 'noumena[md]'``) are imported on first use.
"""
