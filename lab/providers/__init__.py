"""Stand-ins for the engine's provider plugins, for machines that cannot download the official ones.

`bin/` holds one executable per plugin. The engine uses them when that folder comes first on PATH. They are never used
where the official plugin is installed by other means, and each says once per engine run that it is a stand-in. The one
for AWS (`aws/`, with a `bin/` of its own) speaks to a moto server on this machine alone, and only tests use it.

The package knows Kubernetes and Pulumi's provider protocol, and nothing of what Meshbridge builds with them.
"""
