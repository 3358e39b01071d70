"""The published results: their recipes and runs (rows.py), and the files that are written from them (pages.py)."""
