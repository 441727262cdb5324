"""Behaviour: what a subject says, before anybody looks inside."""
