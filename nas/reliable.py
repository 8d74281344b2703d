"""A study's storage whose server may be away for a while: asked again, and nothing told twice."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from latency.commandline import FailureError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import StudyDirection
    from optuna.study._frozen import FrozenStudy
    from optuna.trial import FrozenTrial

T = TypeVar("T")

PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between the attempts to reach a server: it is given a minute."""


class UnreachableError(FailureError):
    """A storage's server did not answer for so long that the work ends."""


class Reliable(BaseStorage):
    """Optuna's storage behind a server, asked again with growing pauses while that is away.

    A server that dies may have done what it never confirmed. Every call is therefore one that may
    be repeated: a trial that is finished as this process finished it is finished, and a trial
    that was made twice is one more that waits, or is found by its parameters (`nas.workers`).

    Args:
        storage: what is asked.
        shown: its name, without passwords.
        absence: returns why an error means that the server is away; None for any other error.
        heartbeat: tells the server that a trial is being worked on; None where it cannot be told.
        pauses: seconds between the attempts.
        sleep: pauses.
    """

    def __init__(
        self,
        storage: BaseStorage,
        shown: str,
        absence: Callable[[Exception], str | None],
        *,
        heartbeat: Callable[[int], None] | None = None,
        pauses: Sequence[float] = PAUSES,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.storage = storage
        self.heartbeat = heartbeat
        self._shown = shown
        self._absence = absence
        self._pauses = tuple(pauses)
        self._sleep = sleep

    def hurry(self) -> None:
        """Ask once from now on: the process is about to end."""
        self._pauses = ()

    def asked(self, question: Callable[[], T]) -> T:
        """Return what a call of the storage returns, made again while the server is away.

        Raises:
            UnreachableError: it was away all the time.
        """
        for number, pause in enumerate((*self._pauses, None)):
            try:
                return question()
            except Exception as error:
                reason = self._absence(error)
                if reason is None:
                    raise
                away = f"the storage '{self._shown}' does not answer ({reason})"
                if pause is None:
                    patience = sum(self._pauses)
                    raise UnreachableError(
                        f"{away}; it was asked {number + 1} times in {patience:.0f} s; the same "
                        "command goes on once it is back"
                    ) from error
                if not number:
                    warnings.warn(
                        f"{away}; it is asked again for {sum(self._pauses):.0f} s", stacklevel=1
                    )
                self._sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial; a running one has a heartbeat before it runs.

        A process that is killed between the two would leave a trial that nobody finds dead.
        """
        if template_trial is not None or self.heartbeat is None:
            return self.asked(lambda: self.storage.create_new_trial(study_id, template_trial))
        while True:
            waiting = create_trial(state=TrialState.WAITING)
            trial_id = self.asked(lambda new=waiting: self.storage.create_new_trial(study_id, new))  # type: ignore[misc]
            if self.set_trial_state_values(trial_id, TrialState.RUNNING):
                return trial_id  # else another process took it

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set a trial's state; whether it was set.

        Raises:
            UpdateFinishedTrialError: it is finished, and not by this call.
        """
        if state == TrialState.RUNNING and self.heartbeat is not None:
            heartbeat = self.heartbeat
            self.asked(lambda: heartbeat(trial_id))
        attempts = 0

        def attempt() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                return self.storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if attempts == 1 or not self._is(trial_id, state, values):
                    raise
                return True  # an earlier attempt was done, and its answer lost

        return self.asked(attempt)

    def _is(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        trial = self.storage.get_trial(trial_id)
        return trial.state == state and (values is None or list(trial.values) == list(values))

    # What follows may be repeated as it is.

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Create a study."""
        return self.asked(lambda: self.storage.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        """Delete a study."""
        self.asked(lambda: self.storage.delete_study(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a study."""
        self.asked(lambda: self.storage.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a system attribute of a study."""
        self.asked(lambda: self.storage.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return a study's id."""
        return self.asked(lambda: self.storage.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return a study's name."""
        return self.asked(lambda: self.storage.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return a study's directions."""
        return self.asked(lambda: self.storage.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return a study's user attributes."""
        return self.asked(lambda: self.storage.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return a study's system attributes."""
        return self.asked(lambda: self.storage.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return every study."""
        return self.asked(self.storage.get_all_studies)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Set a parameter of a trial."""
        value = param_value_internal
        self.asked(lambda: self.storage.set_trial_param(trial_id, param_name, value, distribution))

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """Return a trial's id."""
        ask = self.storage.get_trial_id_from_study_id_trial_number
        return self.asked(lambda: ask(study_id, trial_number))

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Report a value of a trial that is at work."""
        value = intermediate_value
        self.asked(lambda: self.storage.set_trial_intermediate_value(trial_id, step, value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a trial."""
        self.asked(lambda: self.storage.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute of a trial."""
        self.asked(lambda: self.storage.set_trial_system_attr(trial_id, key, value))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial."""
        return self.asked(lambda: self.storage.get_trial(trial_id))

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials of a study."""
        return self.asked(lambda: self.storage.get_all_trials(study_id, deepcopy, states))

    def remove_session(self) -> None:
        """Close this thread's connection."""
        self.storage.remove_session()
