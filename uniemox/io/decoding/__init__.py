"""Decoding in other processes, which are ended if a file takes too long or too much memory."""
