"""What a storage holds back of a trial, to be stored in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import insert


@dataclass
class Pending:
    """What ``PatientStorage.together`` holds back of a trial, and what it read."""

    trial_id: int = -1
    params: list[tuple[Any, ...]] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    read: dict[int, list[FrozenTrial]] = field(default_factory=dict)

    def add(self, storage: RDBStorage, session: Any) -> None:
        """Add it to a transaction, if the trial has not ended.

        That a parameter's distribution fits those of other trials is not looked up each time: all
        come from one study file.
        """
        trial: Any = models.TrialModel.find_or_raise_by_id(self.trial_id, session)
        storage.check_trial_is_updatable(self.trial_id, trial.state)
        rows = [
            {
                "trial_id": self.trial_id,
                "param_name": name,
                "param_value": value,
                "distribution_json": distribution_to_json(distribution),
            }
            for name, value, distribution, _ in self.params
        ]
        if rows:
            session.execute(insert(models.TrialParamModel), rows)
        for key, content in self.attributes.items():
            storage._set_trial_attr_without_commit(
                session, models.TrialUserAttributeModel, self.trial_id, key, content
            )
