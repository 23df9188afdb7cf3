"""Frontends: the last gate, a critic, and what drives the agent. Each is imported from its own module."""
