"""What strangers say to each other: ids, signed statements, wire frames, and the bytes they are made of.

The room exists so that a signature means the same thing to a contract, a gateway, a provider, a validator and a
laptop that replays an audit. It refuses to know any clock, socket, disk, engine or policy, and it imports
nothing of ours.
"""
