"""Views of a run: each reads the same events and changes nothing."""
