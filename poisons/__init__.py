"""The attacks, a module each, and the poison files they write."""
