"""Whether another engine is right and fast enough for this host, tried beside the one that serves.

Everything here works in containers of its own and through arguments: nothing that serves is touched, and nothing of the
host's state is written.
"""
