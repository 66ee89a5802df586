"""cgpt's own model files: format v1 (docs/format_v1.md), JSON, adapters, checkpoints of a training.

It may import `interop` and what lies below it. Begin with `saving.py` and `loading.py`; the two
formats are in `binary_writer.py`, `binary_reader.py` and `json_format.py`, and `manager.py` saves
during training.
"""
