"""Thin commands: arguments and a call."""
