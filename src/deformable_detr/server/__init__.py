"""A server for one detector: HTTP for programs, a page for people. Needs `pip install 'deformable-detr[serve]'`.

Whatever a client sends is bounded in size, number and time (`limits.py`), stays in memory, and is never a name of
anything on this machine or elsewhere.
"""
