"""The conversation of a question: a kept batch is served again, and what its loss says of the state is acted on.

    refused            was the batch bad, or is the state damaged?
    applied in doubt   is the state that it left sound?
    a slow rise        have the oldest batches risen too?
    a snapshot taken   is the state that it holds one to go back to?

What is decided is an `Outcome`; doing it is the governor's. The arithmetic of one question is in `diagnosis`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from flyball.errors import InputError
from flyball.govern.diagnosis import CANDIDATE_AGES, Diagnosis, Finding, Reference
from flyball.govern.verdict import Action, Level, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from flyball.govern.agreement import Agreement
    from flyball.govern.feed import Feed, Kept
    from flyball.govern.policy import Policy
    from flyball.govern.vitals import Vitals

_ANCHORS_NEEDED = 2
_CHANGED_FOR_GOOD = 32  # refusals in a row, the state sound each time
_ADOPT = 16
_ENDLESS = 256
_SLOW = frozenset({"drawdown", "collapse"})


class About(Enum):
    """What a question is about."""

    APPLIED = "the state that a doubtful batch has left"
    REFUSED = "a batch that was refused"
    SLOW = "a slow rise"
    CANDIDATE = "a snapshot that was just taken"


class Outcome(NamedTuple):
    """What is to be done, and said.

    Attributes:
        verdict: Its action says whether the run goes on, back, or stops.
        why: The reason of a rollback or a stop, for a person.
        aloud: Whether the verdict is written into the journal.
        candidate: What was found about the candidate, if the question was about one.
        forget: Whether what was kept cannot be compared any more.
    """

    verdict: Verdict
    why: str = ""
    aloud: bool = True
    candidate: Finding | None = None
    forget: bool = False


@dataclass(slots=True)
class _Question:
    """What is open while kept batches are served again."""

    verdict: Verdict
    about: About
    diagnosis: Diagnosis


class Inquiry:
    """Ask the state in doubt, and say what follows from the answer.

    Args:
        policy: Whether anything is asked at all, and how long a rollback counts.
        vitals: Learns what was found.
        touched: Returns what changes when a parameter is written to: a state that was sound stays so until then.
        agreement: The other ranks, which are asked the same; None if there are none.

    Attributes:
        feed: What serves batches again; None where there is none, and nothing can be asked.
    """

    def __init__(
        self,
        policy: Policy,
        vitals: Vitals,
        touched: Callable[[], tuple[int, ...]],
        agreement: Agreement | None = None,
    ) -> None:
        self.feed: Feed[Any] | None = None
        self._policy = policy
        self._vitals = vitals
        self._touched = touched
        self._agreement = agreement
        self._question: _Question | None = None
        self._sound_at: tuple[int, ...] = ()
        self._restored_at: tuple[int, ...] = ()
        self._row = 0
        self._endless = 0
        self._slow_rollback = -math.inf

    @property
    def open(self) -> bool:
        """Whether an answer is waited for."""
        return self._question is not None

    def close(self) -> None:
        """Give the question up: the loop went on without an answer, or the state that it was about is gone."""
        self._question = None

    def applied(self) -> None:
        """Note that an update was applied: a row of refusals ends."""
        self._row = self._endless = 0

    def rolled_back(self) -> None:
        """Note that the state is another one."""
        self.close()
        self._sound_at, self._row = (), 0
        self._restored_at = self._touched()

    def doubt(self, verdict: Verdict, updates: int) -> Verdict:
        """Ask about the state that a doubtful batch has left; return the verdict, which says so if it can be asked."""
        asked = self._ask(_Question(verdict, About.APPLIED, Diagnosis(updates)))
        return also(verdict, "asking") if asked else verdict

    def examine(self, verdict: Verdict, updates: int) -> None:
        """Ask about the state that a snapshot was just taken of, if it can be asked."""
        calm = Verdict(verdict.step, verdict.stream)
        self._ask(_Question(calm, About.CANDIDATE, Diagnosis(updates, CANDIDATE_AGES)))

    def refused(self, verdict: Verdict, updates: int, *, ask: bool) -> Outcome:
        """Say what follows from a refusal, at once if it is known, or after asking.

        Args:
            verdict: What the detector said.
            updates: How many updates are in the weights.
            ask: Whether the step is one that can be asked about.
        """
        slow = bool(_SLOW & set(verdict.reasons))
        if slow and verdict.step - self._slow_rollback < self._policy.rollback_window:
            return self._shifted(verdict)
        if ask and not slow and self._untouched(self._sound_at):
            return self._data(verdict)  # nothing was applied since the state was last found sound
        about = About.SLOW if slow else About.REFUSED
        if ask and self._ask(_Question(verdict, about, Diagnosis(updates))):
            return Outcome(also(verdict, "asking")._replace(action=Action.SKIP))
        if ask and not slow and self._untouched(self._restored_at):
            # Nothing was kept when the snapshot was taken, and nothing was applied since it was restored: to go back
            # to it once more would change nothing, and spend the budget.
            return self._data(verdict)
        return self._unanswered(verdict)

    def answered(self, loss: float, kept: Kept[Any]) -> Outcome:
        """Take the loss of a batch that was served again."""
        question, feed = self._question, self.feed
        if question is None or feed is None:
            raise InputError("no question is open: only a batch that is served again is an answer")
        self._agree_on_shelf(feed)
        reference: Reference = kept.info[0]  # type: ignore[index] # what the governor kept
        score, diagnosis = reference.score(loss), question.diagnosis
        if question.about is About.SLOW:
            diagnosis.scores.append(score)
            if self._ask(question):
                return _waiting(question)
            mean = math.fsum(diagnosis.scores) / len(diagnosis.scores)
            finding = Finding.SOUND if mean <= 1.0 else Finding.UNCLEAR
        else:
            finding = diagnosis.answer(score, feed.shelf.ages)
            if finding is Finding.ASK and self._ask(question):
                return _waiting(question)
        self._question = None
        return self._found(finding, question)

    def _ask(self, question: _Question) -> bool:
        """Have a kept batch served next, if there is one; say whether."""
        self._question = None
        if self.feed is None or not self._policy.diagnosis:
            return False
        self._agree_on_shelf(self.feed)
        if question.about is About.SLOW:
            asked = len(question.diagnosis.scores)
            enough = len(self.feed.shelf.anchors) >= _ANCHORS_NEEDED
            kept = self.feed.serve_again(asked + 1, anchor=True) if enough else None
        else:
            age = question.diagnosis.age(self.feed.shelf.ages)
            kept = None if age is None else self.feed.serve_again(age)
        if kept is not None:
            self._question = question
        return kept is not None

    def _untouched(self, since: tuple[int, ...]) -> bool:
        """Say whether no parameter was written to since, on any rank."""
        here = since == self._touched()
        return here if self._agreement is None else self._agreement.every(here)[0]

    def _agree_on_shelf(self, feed: Feed[Any]) -> None:
        """Drop what one of the ranks cannot serve any more, so that all of them serve the same age."""
        if self._agreement is not None:
            feed.shelf = feed.shelf.only(*self._agreement.common(*feed.shelf.masks()))

    def _found(self, finding: Finding, question: _Question) -> Outcome:
        verdict, about = question.verdict, question.about
        scores = ", ".join(f"{score:.2g}" for score in question.diagnosis.scores)
        note = f"kept batches rose by {scores} of their usual deviation"
        if about is About.CANDIDATE:
            if finding is not Finding.DAMAGED:
                told = also(verdict, "sound" if finding is Finding.SOUND else "asking")
                return Outcome(told._replace(action=Action.SKIP), aloud=False, candidate=finding)
            told = also(verdict, "distrusted")._replace(level=Level.WATCH, action=Action.SKIP, note=note)
            return Outcome(told, candidate=finding)
        if finding is Finding.DAMAGED and self._restored_at == self._touched():
            # This state was trusted, and is bit for bit what it was: it is the loss that means something else now.
            return self._data(also(verdict, "another-loss"))._replace(forget=True)
        if finding is Finding.DAMAGED:
            return _back(also(verdict, "state")._replace(note=note), f"damage (kept batches rose by {scores} scales)")
        if about is About.APPLIED:
            told = verdict._replace(action=Action.SKIP)
            if finding is Finding.SOUND:
                self._sound_at = self._touched()
                told = also(told, "sound")._replace(level=Level.OK)
            return Outcome(told, aloud=False)
        return self._of_a_refusal(finding, question)

    def _of_a_refusal(self, finding: Finding, question: _Question) -> Outcome:
        if finding is not Finding.SOUND:
            return self._unanswered(question.verdict)
        if question.about is About.SLOW:
            self._vitals.found_sound(slow=True)
            return Outcome(also(question.verdict, "sound")._replace(level=Level.WATCH, action=Action.SKIP))
        return self._data(question.verdict)

    def _shifted(self, verdict: Verdict) -> Outcome:
        """A slow rise came back after a rollback that was made for it: the state was not to blame, the data are."""
        self._vitals.found_sound(slow=True)
        return Outcome(also(verdict, "data", "adopted")._replace(level=Level.WATCH, action=Action.SKIP))

    def _unanswered(self, verdict: Verdict) -> Outcome:
        """Do what the detector alone would have done."""
        if _SLOW & set(verdict.reasons):
            self._slow_rollback = verdict.step
        if verdict.level is Level.PANIC:
            return _back(verdict, ", ".join(verdict.reasons))
        return Outcome(verdict)

    def _data(self, verdict: Verdict) -> Outcome:
        """The state is sound, so the batch was bad: it stays left out, and costs nothing else."""
        self._vitals.found_sound()
        self._sound_at = self._touched()
        self._row += 1
        self._endless += 1
        if self._row >= _CHANGED_FOR_GOOD and self._vitals.held() >= _ADOPT:
            self._vitals.adopt_held()
            self._row = 0
            return Outcome(also(verdict, "data", "adopted")._replace(level=Level.WATCH, action=Action.SKIP))
        if self._endless >= _ENDLESS:
            halted = also(verdict, "data", "endless")._replace(action=Action.HALT)
            first = verdict.step - self._endless + 1
            why = (
                f"the last {self._endless} batches were refused while the state is sound, so no rollback can help "
                f"({halted}): look at the data from step {first} on"
            )
            return Outcome(halted, why)
        level = min(verdict.level, Level.ANOMALY)
        return Outcome(also(verdict, "data")._replace(level=level, action=Action.SKIP))


def also(verdict: Verdict, *codes: str) -> Verdict:
    """Return the verdict with more reasons, each once."""
    return verdict._replace(reasons=(*verdict.reasons, *(code for code in codes if code not in verdict.reasons)))


def _back(verdict: Verdict, why: str) -> Outcome:
    return Outcome(verdict._replace(level=Level.PANIC, action=Action.ROLLBACK), why)


def _waiting(question: _Question) -> Outcome:
    level = Level.OK if question.about is About.CANDIDATE else Level.WATCH
    return Outcome(also(question.verdict, "asking")._replace(level=level, action=Action.SKIP), aloud=False)
