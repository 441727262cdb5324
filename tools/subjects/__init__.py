"""Subjects: the networks under examination."""
