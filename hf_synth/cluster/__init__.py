"""Stages on many machines: the same blocks of rows, computed anywhere, kept in files, merged in order."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
