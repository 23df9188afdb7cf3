"""Teaches the default model the tool format: templated examples, the training on them, and the adapter it made."""
