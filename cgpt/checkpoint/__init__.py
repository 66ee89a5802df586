"""cgpt's own model files: format v1 (docs/format_v1.md), JSON, adapters, checkpoints of a training.

It may import `interop` and what lies below it. Begin with `saving.py` and `loading.py`; the
formats are in `format.py` and `json_file.py`, and `manager.py` saves beside training.
"""
