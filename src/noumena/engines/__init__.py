"""Where ``noumena encode`` and ``noumena score`` compute: in this process, or by Ray Data on one machine or many.

:mod:`~noumena.engines.opened` reads and :mod:`~noumena.engines.work` computes; both are the same for every engine, so
that the chunks, and with them the numbers, are the same too.
"""
