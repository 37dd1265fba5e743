"""Stages on many machines: the same blocks of rows, computed anywhere, kept in files, merged in order."""
