"""What a net remembers, in files: training goes on from them to the bit."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from typing import Any

from skorch.callbacks import LoadInitState
from skorch.exceptions import NotInitializedError
from skorch.history import History
from torch import nn

from mtlsk.aggregators import AGGREGATORS
from mtlsk.estimators.loop import TrainingLoop
from mtlsk.estimators.schedules import go_on, options_of, saved_schedules, steps_taken
from mtlsk.estimators.statecheck import (
    VERSION,
    WHOLE,
    check_groups,
    check_modules,
    check_state,
    check_training,
    class_name,
    files_of,
    kind_of,
    parts_of,
    torn,
)
from mtlsk.estimators.statefile import (
    STAMP,
    in_bytes,
    name_of,
    plain,
    read,
    read_rows,
    read_tensors,
    rows_to_json,
    write,
)

COMPONENTS = ("aggregator", "controller")


class Persistence(TrainingLoop):
    """save_params and load_params that lose nothing.

    The optimizer's file also holds everything else that training goes on from: the memory of
    aggregator and controller, what the controller has changed, the counters and the seed, the
    schedules of the learning rate, the history and the module. So skorch's ``Checkpoint`` and
    ``LoadInitState`` go on to the bit as they are; and as a checkpoint's files are written one
    after the other, a process killed between two of them leaves one that is whole.
    """

    task_map_: Any
    controller_: Any
    n_steps_: int
    _kept: Any = None  # what Descent.kept was when training ended

    # ---- saving

    def save_params(
        self,
        f_params: Any = None,
        f_optimizer: Any = None,
        f_criterion: Any = None,
        f_history: Any = None,
        use_safetensors: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save parts of the net to files, each written whole or not at all.

        Parameters
        ----------
        f_training : path or file
            Everything that training goes on from.
        f_params : path or file
            The module's ``state_dict``: enough to predict.
        f_optimizer : path or file
            As ``f_training``; torch too can load its optimizer from it.
        f_history : path or file
            The history, as JSON.
        f_aggregator, f_controller : path or file
            Their memory alone.
        f_criterion : path or file
            Written only where the criterion is a torch module.
        use_safetensors : bool
            For ``f_params``.

        Raises
        ------
        TypeError
            Where something remembered is no tensor, number, text, list or dict.
        """
        given = {"f_params": f_params, "f_optimizer": f_optimizer, "f_criterion": f_criterion}
        given |= {"f_history": f_history, **kwargs}
        try:
            for part, target in parts_of(given).items():
                content = self._content(part, use_safetensors)
                if content is not None:
                    write(target, content)
        except Exception as error:
            self._not_saved = str(error)  # skorch's Checkpoint says nothing: see notify
            raise

    def _content(self, part: str, use_safetensors: bool) -> bytes | str | None:
        if not self.initialized_:
            raise NotInitializedError(
                f"this {type(self).__name__} has nothing to save yet; call fit(X, y) first"
            )
        if part == "history":
            return rows_to_json(self.history.to_list())
        if part in COMPONENTS:
            return in_bytes({**self._memory_of(part), STAMP: self._stamp()})
        if part in WHOLE:
            state = plain(self.optimizer_.state_dict(), "the optimizer")
            return in_bytes({**state, STAMP: self._training()})
        if part == "criterion" and "criterion" not in self._own_modules():
            return None
        if use_safetensors:
            buffer = io.BytesIO()
            super().save_params(**{f"f_{part}": buffer}, use_safetensors=True)
            return buffer.getvalue()
        state = self._get_module(f"{part}_", NO_PART).state_dict()
        if hasattr(state, "_metadata"):
            state._metadata[STAMP] = self._stamp()
        return in_bytes(state)

    def _stamp(self) -> dict[str, int]:
        """Return of which moment of which training a file is."""
        return {"epoch": len(self.history), "step": self._position()[0], "seed": self.seed_}

    def _position(self) -> tuple[int, Any]:
        """Return the steps taken and the task weights kept, in the middle of training too."""
        descent = vars(self).get("_descent")
        return (self.n_steps_, self._kept) if descent is None else (descent.n_steps, descent.kept)

    def _memory_of(self, owner: str) -> dict[str, Any]:
        component = getattr(self, f"{owner}_")
        state = {} if component is None else component.state_dict()
        memory: dict[str, Any] = plain(state, class_name(component))
        return memory

    def _training(self) -> dict[str, Any]:
        """Return everything that training goes on from, but for the optimizer."""
        schedules = vars(self).get("_schedules")  # loaded, and not yet gone on with
        if schedules is None:
            schedules = saved_schedules(self, vars(self).get("_steps_before", {}))
        return {
            "version": VERSION,
            **self._stamp(),
            "kept": plain(self._position()[1], "the task weights"),
            "tasks": list(self.task_names_),
            "kinds": [kind_of(task) for task in self.tasks_],
            "classes": {o: class_name(getattr(self, f"{o}_")) for o in (*COMPONENTS, "optimizer")},
            "task_map": plain(self.task_map_.state_dict(), "the task map"),
            **{owner: self._memory_of(owner) for owner in COMPONENTS},
            "aggregator_params": self._changed_params(),
            "schedules": schedules,
            "modules": {n: m.state_dict() for n, m in self._own_modules().items()},
            "history": rows_to_json(self.history.to_list()),
        }

    def _own_modules(self) -> dict[str, nn.Module]:
        """Return the torch modules of the net by their names without underscore."""
        names = dict.fromkeys((*self._modules, *self._criteria))
        found = {name: getattr(self, f"{name}_", None) for name in names}
        return {name: m for name, m in found.items() if isinstance(m, nn.Module)}

    def _changed_params(self) -> dict[str, Any]:
        """Return the parameters of the aggregator that a controller has changed."""
        built = AGGREGATORS.build(self.aggregator, self.get_params_for("aggregator"))
        before, live = (a.get_params(deep=False) for a in (built, self.aggregator_))
        numbers = {n: v for n, v in live.items() if isinstance(v, bool | int | float | str)}
        return {n: plain(v) for n, v in numbers.items() if v != before[n]}

    # ---- loading

    def load_params(
        self,
        f_params: Any = None,
        f_optimizer: Any = None,
        f_criterion: Any = None,
        f_history: Any = None,
        checkpoint: Any = None,
        use_safetensors: bool = False,
        **kwargs: Any,
    ) -> None:
        """Load what :meth:`save_params` or a ``Checkpoint`` saved, all of it or nothing.

        The net must know the shapes of its data: it was fitted, or ``initialize_for(X, y)`` was
        called. The optimizer's options, learning rates included, become those of the file.

        Parameters
        ----------
        f_training, f_params, f_optimizer, f_criterion, f_history, f_aggregator, f_controller
            As for :meth:`save_params`. ``f_optimizer`` brings the whole training but for the
            module's parameters, ``f_training`` these too.
        checkpoint : skorch ``Checkpoint``
            Its files. Where a killed process left them at different epochs, everything comes from
            the optimizer's, which is whole, and a warning says so.
        use_safetensors : bool
            For ``f_params``.

        Raises
        ------
        FileNotFoundError
            If a file is not there.
        ValueError
            In one line, for a file that is damaged, of another moment than the others, or of
            another net than this one; the net is as it was.
        """
        given = {"f_params": f_params, "f_optimizer": f_optimizer, "f_criterion": f_criterion}
        given |= {"f_history": f_history, **kwargs}
        if not self.initialized_:
            if not hasattr(self, "task_names_"):
                raise NotInitializedError(
                    f"this {type(self).__name__} does not know the shapes of its data yet; "
                    "call initialize_for(X, y) before load_params"
                )
            self.initialize()
        sources, rows = parts_of(given), None
        if checkpoint is not None:
            if checkpoint.f_history is not None:
                rows = read_rows(checkpoint.f_history_)
            sources = parts_of(files_of(checkpoint, self, rows)) | sources
        if "history" in sources:
            rows = read_rows(sources.pop("history"))
        if "criterion" not in self._own_modules():  # a function has no state
            sources.pop("criterion", None)
        states = {
            part: self._read(part, source, use_safetensors) for part, source in sources.items()
        }
        whole = next((part for part in WHOLE if part in states), "")
        training: Any = states.get(whole, {}).pop(STAMP, None)
        file = sources.get(whole)
        if words := torn(sources, states, training, rows):
            if checkpoint is None or training is None:
                raise ValueError(f"{words}; take files of one moment, or load one after the other")
            warnings.warn(
                f"{words}: a process ended while it saved them; everything is taken from "
                f"{name_of(file)}, which is whole",
                stacklevel=2,
            )
            states, rows = {"training": states[whole]}, None
        if "training" in states:
            states["optimizer"] = states.pop("training")
            states = {**training["modules"], **states}
        if training is not None:
            check_training(self, training, file)
            check_modules(self._own_modules(), training["modules"], {}, file)
            rows = read_rows(io.StringIO(training["history"])) if rows is None else rows
        check_modules(self._own_modules(), states, sources, file)
        if "optimizer" in states:
            check_groups(self.optimizer_, states["optimizer"], file)
        self._take_over(states, training)
        if rows is not None:
            self.history = History(rows)

    def _read(self, part: str, source: Any, use_safetensors: bool) -> Any:
        if use_safetensors and part not in (*COMPONENTS, *WHOLE):
            return read_tensors(source)
        options = self.torch_load_kwargs or {"weights_only": True}
        state = read(source, **options)
        check_state(part, state, source)
        return state

    def _take_over(self, states: Mapping[str, Any], training: Any) -> None:
        """Load states that were checked; if one fails all the same, put everything back."""
        targets: list[tuple[Any, Any]] = [
            (self._get_module(f"{part}_", NO_PART), state)
            for part, state in states.items()
            if part not in COMPONENTS
        ]
        for owner in COMPONENTS:
            if owner not in states and training is None:
                continue
            saved = states[owner] if owner in states else training[owner]
            memory = {name: value for name, value in saved.items() if name != STAMP}
            component = getattr(self, f"{owner}_")
            if component is not None:
                targets.append((component, memory))
            elif memory:
                raise ValueError(
                    f"the saved net had a {owner} and this one has none; give it the same"
                )
        if training is not None:
            targets.append((self.task_map_, training["task_map"]))
        params = self.aggregator_.get_params(deep=False)
        before = [(target, copy.deepcopy(target.state_dict())) for target, _ in targets]
        try:
            for target, state in targets:
                target.load_state_dict(state)
            if training is not None:
                self.aggregator_.set_params(**training["aggregator_params"]).check_domains()
        except Exception as error:
            self.aggregator_.set_params(**params)
            for target, state in before:
                target.load_state_dict(state)
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"the files do not fit this net ({why}); give it the parameters and the shapes of "
                "data of the one that was saved"
            ) from error
        if training is not None:
            self.n_steps_, self.seed_ = training["step"], training["seed"]
            self._kept, self._schedules = training["kept"], training["schedules"]

    # ---- callbacks

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call the callbacks; those that load a state first, so that the others find it there.

        Schedules of the learning rate go on where they were. A checkpoint that could not be
        written is said in a warning: skorch's ``Checkpoint`` keeps it to itself.
        """
        self.__dict__.pop("_not_saved", None)
        if method_name == "on_train_begin":
            self._begin_training(kwargs)
        elif method_name == "on_epoch_end":
            self._steps_before = steps_taken(self)
            try:
                super().notify(method_name, **kwargs)
            finally:
                del self._steps_before
        else:
            super().notify(method_name, **kwargs)
        if problem := self.__dict__.pop("_not_saved", None):
            warnings.warn(f"a checkpoint was not saved: {problem}", stacklevel=2)

    def _begin_training(self, kwargs: dict[str, Any]) -> None:
        for _, callback in self.callbacks_:
            if isinstance(callback, LoadInitState):
                callback.on_train_begin(self, **kwargs)
        saved = self.__dict__.pop("_schedules", None)
        if saved is None and len(self.history):
            saved = saved_schedules(self, {})
        options = options_of(self.optimizer_)
        super().notify("on_train_begin", **kwargs)
        if saved:
            go_on(self, saved, options)


NO_PART = "the net has no part {name!r} to save or load; check the name for typos"
