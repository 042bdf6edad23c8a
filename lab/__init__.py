"""Real clusters on one machine: a control plane per cluster, without containers.

`lab.control_plane` is the entry. Nothing is imported here, because the stand-in plugins of `lab.providers` are started
by the engine in processes of their own and every import delays them.
"""
