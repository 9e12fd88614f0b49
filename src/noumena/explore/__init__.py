"""The explorer's page: one trained model and its data, seen in a browser of the same machine.

Rooms: ``opening`` makes the explorer of a run, ``service`` asks it for drawings one at a time, ``checks`` judges what
comes from the page, ``maps`` brings the points to the plane, ``figures`` and ``parts`` are what is seen, ``layout``
where it stands, ``callbacks`` and ``downloads`` what happens, ``server`` who may ask.
"""
