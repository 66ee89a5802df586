"""Dialogues with a model: the session, its history and its file.

It may import `language_model`, `generation` and what lies below them. Begin with `session.py`.
"""
