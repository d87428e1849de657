"""Packs as tested data: what is wrong with one, how well it separates, and why it finds what it finds."""

from __future__ import annotations
