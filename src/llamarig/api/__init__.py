"""The management API: HTTP in front of what the daemon gives it. It decides nothing about services."""
