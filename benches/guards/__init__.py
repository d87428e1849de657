"""Any guard against labelled texts: what it catches, what it flags for nothing, and how fast."""
