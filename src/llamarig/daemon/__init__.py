"""The owner of a host's state: what is active, how it changes, what happened.

The command line runs these transactions itself, as root and under a lock. The daemon that will own them takes this
room over as it stands; clients then ask it instead.
"""
