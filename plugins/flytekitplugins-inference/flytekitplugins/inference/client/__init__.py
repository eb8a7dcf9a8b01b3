"""What a task function uses to talk to its model server.

`address` says where a server answers, as data. `methods` makes clients and batches for a template or
an endpoint, by the server's protocol. `endpoint` is both in one, and nobody below knows it.
`transport` is the HTTP layer below all clients: `retry` decides what may be sent again, `outage`
waits for a server that went away, `record` remembers. `chat` and `v2` are the clients of the two protocols. May import the errors of this
package, and third parties only in modules that are imported when a client is made.
"""
