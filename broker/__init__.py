"""The broker: an Open Service Broker proxy that makes the routes of the bindings that pass through it.

Two of them stand in a chain, platform -> consumer's proxy -> provider's proxy -> broker. Each forwards every call, adds its
side of the route to what passes, and drives `components` through Pulumi's Automation API. `docs/broker.md` tells the whole
story; `python -m broker --help` runs it.
"""
