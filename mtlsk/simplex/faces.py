"""Minima over the simplex by a search over its faces, one small Cholesky solve a face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

from mtlsk.simplex.numerics import EPS, Array, Mask

PATIENCE = 3  # exchanges of blocks without a gain, as in Portugal, Júdice and Vicente (1994)
Face = NDArray[np.intp]


class Minimum(NamedTuple):
    """What a face S has: a stationary point, a direction of endless descent, or a dependent row."""

    target: Array | None = None  # (|S|,), sums to 1, of any sign
    direction: Array | None = None  # (|S|,), sums to 0
    dependent: int | None = None  # position in S


class Faces:
    """f(w) = linear'w + radius sqrt(w'Gw) on the faces S of the simplex (w = 0 off S).

    Stationary on the affine hull of S, grad f = nu 1 with sum w = 1: with M = G_SS + kappa 11',
    x = M^-1 1, y = M^-1 linear, a = 1'x, s = 1'y / a, h = y - s x and E = (linear - s)'h,

        w = x/a - h sqrt((x/a)'G(x/a) / (radius^2 - E)),

    where E < radius^2; otherwise f falls for ever along -h. (Ours. kappa changes no answer: it
    makes faces solvable on which 1 is not in the range of G_SS. It is the least |g_i|^2, or
    rounding would hide the short gradients.)
    """

    def __init__(self, gramian: Array, linear: Array | None, radius: float) -> None:
        diagonal = gramian.diagonal()
        self.gramian, self.linear, self.radius = gramian, linear, radius
        self.norms = np.sqrt(np.abs(diagonal))
        squares = diagonal.tolist()  # Python is quicker here than another call of numpy
        self.kappa: float = max(min(squares), 1e-12 * max(squares))

    def minimum(self, face: Face) -> Minimum:
        """Return what the face has; an empty Minimum where f is least at its kink w'Gw = 0."""
        g = self.gramian.take(face, 0).take(face, 1)
        right = np.ones((len(face), 1 if self.linear is None else 2))
        if self.linear is not None:
            right[:, 1] = self.linear[face]
        _, solution, failed = dposv(g + self.kappa, right)
        if failed:
            return Minimum(dependent=failed - 1)
        x = solution[:, 0]
        a = float(x.sum())
        target = x / a
        if self.linear is not None:
            s = float(solution[:, 1].sum()) / a
            h = solution[:, 1] - s * x
            room = self.radius**2 - float((right[:, 1] - s) @ h)
            if room <= 0:
                return Minimum(direction=-h)
            squared = float(target @ g @ target)
            if self._lost(face, target, squared):
                return Minimum()
            target = target - h * math.sqrt(squared / room)
        return Minimum(target=target)

    def best_corner(self) -> Face:
        """Return the face (1,) of the task where f is least of all corners of the simplex."""
        values = self.radius * self.norms
        return np.atleast_1d((values if self.linear is None else self.linear + values).argmin())

    def infeasible(self, face: Face, w: Array) -> tuple[Mask, Array] | None:
        """Return which tasks break the KKT conditions (K,), and f(w) - grad f(w) (K,).

        They are those with w <= 0 on the face, and too small a slope off it. None where w'Gw is
        lost in rounding, so that there is no slope.
        """
        gw = self.gramian.take(face, 1) @ w
        squared = float(w @ gw[face])
        if self._lost(face, w, squared):
            return None
        scale = self.radius / math.sqrt(squared)
        slopes = scale * gw
        rounded = (8 * EPS * scale * float(self.norms[face] @ np.abs(w))) * self.norms
        if self.linear is not None:
            slopes += self.linear
            rounded += 8 * EPS * np.abs(self.linear)
        value = float(slopes[face] @ w)
        excess: Array = value - slopes
        bad: Mask = excess > rounded + 1e-13 * abs(value)
        bad[face] = w <= 0
        return bad, excess

    def refined(self, face: Face, w: Array, excess: Array) -> Array:
        """Return w after a step of iterative refinement where its slopes are not quite equal.

        With M delta = excess the step is delta - x (w'G delta) / (w'Gx): across w, as only the
        direction of w counts.
        """
        error = excess[face]
        unequal = error.tolist()
        g = self.gramian.take(face, 0).take(face, 1)
        gw = g @ w
        norm = math.sqrt(float(w @ gw))
        if max(unequal) - min(unequal) <= 1e-12 * self.radius * norm:
            return w
        right = np.column_stack([np.ones(len(face)), error * (norm / self.radius)])
        _, solution, failed = dposv(g + self.kappa, right)
        x, step = solution[:, 0], solution[:, 1]
        along = float(gw @ x)
        if failed or along <= 0:
            return w
        moved: Array = w + step - x * (float(gw @ step) / along)
        return moved if bool((moved > 0).all()) else w

    def _lost(self, face: Face, w: Array, squared: float) -> bool:
        """Return whether w'Gw is no more than rounding."""
        return squared <= 4 * len(face) * EPS * float(self.norms[face] @ np.abs(w)) ** 2


def search_faces(
    gramian: Array, support: Sequence[int], linear: Array | None = None, radius: float = 1.0
) -> Array | None:
    """Return argmin of linear'w + radius sqrt(w'Gw) over the simplex (K,), None if it gives up.

    Begins at the face ``support``: where that is the right one, as from one training step to the
    next it often is, a single solve is all.
    """
    faces = Faces(gramian, linear, radius)
    face, w = _exchange(faces, np.array(support))
    if w is None:
        face, w = _descend(faces, face)
    if w is None:
        return None
    full = np.zeros(len(gramian))
    full[face] = w / float(w.sum())
    return full


def _exchange(faces: Faces, face: Face) -> tuple[Face, Array | None]:
    """Return the face of the minimum and w on it, or the last face and None.

    Block principal pivoting: all tasks that break the KKT conditions change sides at once, as long
    as they get fewer (Portugal, Júdice and Vicente 1994, for f).
    """
    fewest, patience = len(faces.norms) + 1, PATIENCE
    for _ in faces.norms:
        target, _, dependent = faces.minimum(face)
        if dependent is not None and len(face) > 1:
            face = np.delete(face, dependent)
            continue
        if target is None:
            break
        checked = faces.infeasible(face, target)
        if checked is None:
            break
        bad, excess = checked
        count = bad.tolist().count(True)
        if count == 0:
            return face, faces.refined(face, target, excess)
        patience = PATIENCE if count < fewest else patience - 1
        if patience < 0:
            break
        fewest = min(count, fewest)
        bad[face] ^= True
        face = bad.nonzero()[0]
    return face, None


def _descend(faces: Faces, face: Face) -> tuple[Face, Array | None]:
    """Return the face of the minimum and w on it, or None for w where it gives up.

    An active set method (Lawson and Hanson 1974, for f): from a feasible w towards the minimum on
    its face as far as w stays positive; at the minimum all tasks with too small a slope come in.
    As f falls, no face comes twice.
    """
    w: Array | None = None  # until a face is found whose minimum is feasible
    left_out = np.zeros(len(faces.norms), dtype=np.bool_)  # rows that depend on those of the face
    for _ in range(20 + 2 * len(faces.norms)):
        target, direction, dependent = faces.minimum(face)
        if dependent is not None:
            if len(face) == 1 or (w is not None and w[dependent] > 0):
                break
            left_out[face[dependent]] = True
            face = np.delete(face, dependent)
            w = None if w is None else np.delete(w, dependent)
        elif target is not None and bool((target > 0).all()):
            checked = faces.infeasible(face, target)
            if checked is None:  # zero is in the hull: a minimum, unless f has a linear term
                return face, target if faces.linear is None else None
            bad, excess = checked
            if not bool(bad.any()):
                return face, faces.refined(face, target, excess)
            entering = (bad & ~left_out).nonzero()[0]
            if len(entering) == 0:
                break
            face = np.append(face, entering)
            w = np.append(target, np.zeros(len(entering)))
        elif w is not None:
            if target is not None:
                direction = target - w
            if direction is None or not bool((direction < 0).any()):
                break
            down = direction < 0
            step = float((w[down] / -direction[down]).min())
            w = w + step * direction
            keep = ~(down & (w <= 1e-15))
            if bool(keep.all()):
                break
            face, w = face[keep], w[keep] / float(w[keep].sum())
            if step > 0:
                left_out[:] = False
        elif target is not None:
            face = face[target > 0]
        elif direction is not None:
            face, w = faces.best_corner(), np.ones(1)
        else:
            break
    return face, None
