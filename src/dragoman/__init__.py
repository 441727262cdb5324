"""Dragoman: an LLM agent that interprets neural networks."""

__version__ = "0.1.0"
