"""What pvstub costs, measured side by side with its peers. ``python -m benchmarks`` runs all, or those named.

A measure is a file here with a ``run(setting)`` that returns a Section. Each takes the things it compares in turn, in
one run, and gives the median: of the rounds' own ratios where there is a peer, so that a machine that slows down in
the middle slows both. Beside wall time stands CPU time (user and system, of the whole process), which says more on a
machine that has other things to do.
"""
