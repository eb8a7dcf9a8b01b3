"""What a task function uses to talk to its model server.

`endpoint` says where a server answers and makes clients; `transport` is the HTTP layer below all of
them: `retry` decides what may be sent again, `outage` waits for a server that went away, `record`
remembers. `chat` and `v2` are the clients of the two protocols. May import the errors of this
package, and third parties only in modules that are imported when a client is made.
"""
