"""The batches of a loader, and where in the data they stand."""

from flyball.govern.feed.feed import Feed as Feed
from flyball.govern.feed.position import Position as Position
from flyball.govern.feed.position import SeekError as SeekError
from flyball.govern.feed.shelf import Kept as Kept
from flyball.govern.feed.shelf import Shelf as Shelf

__all__ = ["Feed", "Kept", "Position", "SeekError", "Shelf"]
