"""Components and the config grammar: what a user may write where an object is wanted.

One rule everywhere (constructor, GridSearchCV, TOML, command line)::

    "ConicGrad" | "my_module:MyAggregator" | {"name": "ConicGrad", "c": 0.5} | class | instance

:meth:`Registry.build` makes the live object, :func:`describe` is its inverse.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import operator
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Generic, Self, TypeVar

from sklearn.base import BaseEstimator, clone

from mtlsk.domains import Domain

T = TypeVar("T")


def closest(word: str, words: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest of ``words``, or an empty string."""
    by_lower = {w.lower(): w for w in words}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""


def shown(value: object, width: int = 120) -> str:
    """Return ``repr(value)`` on one line, cut where it is long: arrays and modules break lines."""
    text = " ".join(repr(value).split())
    return text if len(text) <= width else text[: width - 3] + "..."


class Component(BaseEstimator):  # type: ignore[misc]
    """A configurable object: scikit-learn parameters, checked domains, memory that can be reset.

    ``__init__`` stores its arguments verbatim (``sklearn.clone`` demands it); ``domains`` declares
    what each may be and is checked by :meth:`check_domains` when a live object is built. What an
    algorithm remembers between steps lives in attributes that end in an underscore, created on
    first use: they are what :meth:`state_dict` saves and :meth:`reset` forgets.
    """

    domains: ClassVar[Mapping[str, Domain]] = {}

    def check_domains(self) -> Self:
        """Raise ValueError, naming the value and what is allowed, for a parameter out of domain."""
        params = self.get_params(deep=False)
        for name, domain in self.domains.items():
            if name not in params:
                raise TypeError(
                    f"{type(self).__name__} declares a domain of {name!r}, which its __init__ "
                    f"does not take; it takes: {', '.join(params) or 'nothing'}"
                )
            allowed = domain.resolve(params)
            if params[name] not in allowed:
                raise ValueError(
                    f"{type(self).__name__}: {name}={shown(params[name])} is not allowed; "
                    f"{name} must be {allowed}"
                )
        return self

    def reset(self) -> Self:
        """Forget everything remembered since construction."""
        for name in self._memory():
            delattr(self, name)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the memory as a dict of tensors, numbers and lists."""
        return {name: copy.deepcopy(getattr(self, name)) for name in self._memory()}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Replace the memory by one that :meth:`state_dict` returned."""
        self.reset()
        for name, value in state.items():
            setattr(self, name, copy.deepcopy(value))
        return self

    def _memory(self) -> list[str]:
        return [n for n in vars(self) if n.endswith("_") and not n.startswith("_")]


def parameter_names(cls: type) -> list[str]:
    """Return the names of a class's constructor parameters, without ``*args`` and ``**kwargs``."""
    if issubclass(cls, Component):
        return list(cls._get_param_names())
    parameters = list(inspect.signature(cls).parameters.values())
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.kind not in variadic]


def import_object(path: str) -> Any:
    """Import ``"module:Name"``; ValueError in one line when there is no such thing."""
    module_name, _, name = path.partition(":")
    if not module_name or module_name.startswith(".") or not name:
        raise ValueError(f"{path!r} names no object; write 'module:Name' with a full module name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"cannot import {module_name!r} of {path!r}: {error}; is its folder on PYTHONPATH?"
        ) from error
    try:
        return operator.attrgetter(name)(module)
    except AttributeError:
        public = [n for n in dir(module) if not n.startswith("_")]
        raise ValueError(f"module {module_name!r} has no {name!r}{closest(name, public)}") from None


@cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group; looking through all packages takes milliseconds."""
    return tuple(entry_points(group=group))


class Registry(Generic[T]):
    """The members of one kind of component: a package's ``__all__`` and installed entry points.

    Nothing is registered at run time: a name added in this process would be unknown in a worker.

    Parameters
    ----------
    kind : str
        What a member is called in messages, and the prefix of its parameters on an estimator.
    package : str
        The package whose ``__all__`` lists the members; also the group of the entry points.
    base : type of T, abstract or not
        The class every member derives from.
    fallback : str or None
        A module searched for names that the package does not have.
    """

    def __init__(self, kind: str, package: str, base: Any, *, fallback: str | None = None) -> None:
        self.kind = kind
        self.package = package
        self.base: type[T] = base
        self.fallback = fallback

    def __repr__(self) -> str:
        return f"<Registry {self.package}>"

    def members(self) -> dict[str, type[T]]:
        """Return name -> class for the package's own members, then installed entry points."""
        found = self.own()
        for point in _installed(self.package, tuple(sys.path)):
            if point.name not in found:
                found[point.name] = point.load()
        return found

    def own(self) -> dict[str, type[T]]:
        """Return name -> class for the package's own members alone."""
        package = importlib.import_module(self.package)
        own = {name: getattr(package, name) for name in package.__all__}
        return {n: c for n, c in own.items() if self._is_member(c)}

    def _is_member(self, obj: object) -> bool:
        return isinstance(obj, type) and issubclass(obj, self.base) and not inspect.isabstract(obj)

    def find(self, name: str) -> type[T]:
        """Return the class of a name: ``module:Class``, or a member's name.

        Case and underscores make no difference: ``path_norm`` is ``PathNorm``.
        """
        if ":" in name:
            cls = import_object(name)
            if not self._is_member(cls):
                raise ValueError(f"{name!r} is no {self.kind}: it must derive from {self.base}")
            return cls  # type: ignore[no-any-return]
        members = self.own()
        if _plain(name) not in map(_plain, members):
            members = self.members()  # looks through all installed packages: milliseconds
        by_plain = {_plain(n): c for n, c in members.items()}
        if _plain(name) in by_plain:
            return by_plain[_plain(name)]
        if self.fallback is not None:
            module = importlib.import_module(self.fallback)
            for other, obj in vars(module).items():
                if other.lower() == name.lower() and self._is_member(obj) and obj is not self.base:
                    return obj  # type: ignore[no-any-return]
        raise ValueError(
            f"unknown {self.kind} {name!r}{closest(name, members)}; "
            f"allowed: {', '.join(sorted(members))}, or 'module:Class'"
        )

    def resolve(self, spec: Any) -> tuple[type[T], dict[str, Any]]:
        """Return the class and the parameters that a spec of the grammar names."""
        if isinstance(spec, str):
            return self.find(spec), {}
        if isinstance(spec, Mapping):
            params = dict(spec)
            name = params.pop("name", None)
            if name is None:
                raise ValueError(
                    f"{self.kind}={shown(spec)} has no 'name'; write e.g. name = \"...\""
                )
            cls, own = self.resolve(name)
            return cls, {**own, **params}
        if self._is_member(spec):
            return spec, {}
        if isinstance(spec, self.base) and isinstance(spec, Component):
            return type(spec), spec.get_params(deep=False)
        raise ValueError(
            f"{self.kind}={shown(spec)} is not understood; write a name, 'module:Class', a dict "
            f"with a 'name', a class or an instance of {self.base.__name__}"
        )

    def configure(
        self, spec: Any, params: Mapping[str, Any] | None = None
    ) -> tuple[type[T], dict[str, Any]]:
        """Return class and parameters, those in ``params`` last; an unknown one raises."""
        cls, own = self.resolve(spec)
        merged = {**own, **(params or {})}
        valid = parameter_names(cls)
        for name in merged:
            if name not in valid:
                listed = ", ".join(valid) or "none: it takes no parameters"
                raise ValueError(
                    f"{cls.__name__} has no parameter {name!r}{closest(name, valid)}; "
                    f"valid parameters: {listed}"
                )
        return cls, merged

    def build(self, spec: Any, params: Mapping[str, Any] | None = None) -> T:
        """Build the live object: always a fresh one, its domains checked.

        An instance is cloned, so what the user holds is never touched.
        """
        cls, merged = self.configure(spec, params)
        if isinstance(spec, Component):
            # clone keeps parameters of subclasses that do more than store in __init__
            live: T = clone(spec).set_params(**(params or {}))
        else:
            live = cls(**merged)
        if isinstance(live, Component):
            live.check_domains()
        return live


def _plain(name: str) -> str:
    """Return a name without what makes no difference: case and underscores."""
    return name.lower().replace("_", "")


def describe(component: Component) -> dict[str, Any]:
    """Return the plain dict that builds an equal component: its name and what is not default.

    Components in lists are described too.
    """
    cls = type(component)
    package_name = cls.__module__.rpartition(".")[0]
    # a bare name means a member of one of our own packages
    ours = importlib.import_module(package_name) if package_name.startswith("mtlsk.") else None
    bare = cls.__name__ in getattr(ours, "__all__", ())
    name = cls.__name__ if bare else f"{cls.__module__}:{cls.__qualname__}"
    defaults = inspect.signature(cls).parameters
    params = component.get_params(deep=False)
    return {"name": name} | {
        key: _described(value)
        for key, value in params.items()
        if type(value) is not type(defaults[key].default) or value != defaults[key].default
    }


def _described(value: Any) -> Any:
    if isinstance(value, Component):
        return describe(value)
    return [_described(v) for v in value] if isinstance(value, list) else value
