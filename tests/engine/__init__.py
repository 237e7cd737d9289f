"""The real engine against the planner: estimates, loaded buffers, and the place of every tensor."""
