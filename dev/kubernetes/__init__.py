"""A real Kubernetes of one node on this machine, without Docker: `dev/cluster`.

Everything runs in namespaces of its own (processes, mounts, network): the host sees one process,
one loopback port and one folder. So two clusters cannot meet, and when the first process of the
namespaces ends, however it ends, the kernel ends all others and takes mounts, bridges and rules
with them.

    __main__    the commands
    build       the programs, built from Go modules and kept in the user's cache
    instance    one cluster of one checkout: its folder, its state, its beginning and its end
    node        the first process inside: network, parts, reaping, the way in
    settings    the files that the parts read
    cgroups     what lies outside of namespaces
    archive     images, written as tar files
    packages    a root file system of what this machine has installed
    files       where things lie, and locks

Only the standard library is used.
"""
