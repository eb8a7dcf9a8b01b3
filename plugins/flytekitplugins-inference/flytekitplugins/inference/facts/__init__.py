"""What the clients, the programs and the pod layer all need to know, written once.

Asking over HTTP within bounds, addresses, the grammar of models, a server's list of models, its
readiness, pages of metrics and the names of their quantities. Standard library only; imports
nothing of this package but the errors, and travels with the programs in the pod spec.
"""
