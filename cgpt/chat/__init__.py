"""Dialogues with a model: the session, its history and its file.

It may import `generation` and what lies below it. Begin with `session.py`.
"""
