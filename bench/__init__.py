"""Measures what the program costs: its import, its registrations, an `up` from end to end, and on the lab the path that it makes.

`python -m bench` runs everything that needs no root, `python -m bench lab` the rest; each writes its sections of `bench/RESULTS.md`
and leaves the others. `python -m bench --help` names the parts.
"""
