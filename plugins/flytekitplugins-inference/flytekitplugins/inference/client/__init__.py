"""What a task function uses to talk to its model server.

`server_address` holds where a server answers, as data. `methods` creates clients and batches for a
template or an endpoint, by the server's protocol. `endpoint` combines the two; no module below
imports it. `transport` is the HTTP layer below all clients: `attempts` decides what may be sent
again, `outage` waits for a server that went away, `record` keeps count. `chat` and `v2` are the
clients of the two protocols. Only modules that are imported when a client is created may import
third-party packages.
"""
