"""The stand-in for Pulumi's AWS plugin: the few resources and functions that the program uses, against moto.

It talks to a server on this machine and to nothing else, however it is configured: real accounts are for the official
plugin. Replacement rules, names and the calls that each operation makes are the official plugin's, whose provider is
Terraform's.
"""
