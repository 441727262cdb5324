"""Techniques: every tool that looks into a subject, one module or small package each."""
