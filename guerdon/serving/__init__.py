# SPDX-License-Identifier: Apache-2.0
"""A reward as a service: over HTTP, typed and batched, and a client that is a reward itself.

schema    what is asked and answered
scoring   items scored by a reward; one that breaks it is lost alone
batching  requests of many clients in one call of the reward
limits    bodies, rates, tokens, hosts
metrics   counts and times as Prometheus reads them
app       the endpoints
server    the process or thread that serves them
client    ``remote(url)``, a leaf of an expression
"""
