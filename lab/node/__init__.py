"""The lab's node: runs Pods as network namespaces with local processes.

It does a kubelet's work: it binds Pods, makes their network and volumes, runs their containers in order, probes and
restarts them, reports their status and removes them. In the place of container images stand local programs
(`lab.node.images`).
"""
