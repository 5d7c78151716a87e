"""How fast kvis2 is: against the least work a method needs, and against its peers.

`python -m benchmarks --quick` takes less than three minutes, `make bench` runs everything.
"""
