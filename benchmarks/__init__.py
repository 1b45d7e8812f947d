"""Measurements that anyone can repeat: ratios to a named peer, both run in turns in one process."""
