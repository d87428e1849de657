"""Views of a run: readers of its journal that change nothing."""

from flyball.observe.journals import RunRecords as RunRecords
from flyball.observe.journals import Seam as Seam
from flyball.observe.journals import read as read
from flyball.observe.story import Story as Story
from flyball.observe.story import read_story as read_story

__all__ = ["RunRecords", "Seam", "Story", "read", "read_story"]
