"""The Pulumi program: the current stack's configuration, its components, its outputs."""

import pulumi

from components import declare_stack
from config import settings

stack = settings.load()
kubeconfig = settings.kubeconfig_secret() if stack.cluster.kubeconfig_secret else None
for key, value in declare_stack(stack, kubeconfig, settings.certificate_secrets(stack)).items():
    pulumi.export(key, value)
