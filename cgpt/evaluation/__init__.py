"""How good a model is: perplexity, answers, scores of continuations.

It may import `language_model`, `generation`, `corpus` and what lies below them. Begin with
`perplexity.py`.
"""
