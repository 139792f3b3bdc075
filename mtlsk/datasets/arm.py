"""A simulated seven-joint arm: inverse dynamics without noise, so zero loss is reachable."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch, check_random_state

__all__ = ["inverse_dynamics", "make_arm"]

Floats = NDArray[np.float64]

# The arm: roll and pitch joints alternate (shoulder, elbow, wrist); at q = 0 it stands straight up.
AXES = np.array([[0, 0, 1], [0, 1, 0]] * 3 + [[0, 0, 1]], dtype=np.float64)
# Joint i's origin in the frame of link i - 1, in m.
OFFSETS = np.zeros((7, 3))
OFFSETS[:, 2] = [0.15, 0.16, 0.20, 0.19, 0.18, 0.16, 0.09]
# The centre of mass of link i in its own frame, in m: off the axes, or the tasks would decouple.
CENTRES = np.array(
    [
        [0.01, -0.03, 0.08],
        [0.02, 0.03, 0.10],
        [-0.01, 0.02, 0.09],
        [0.02, -0.02, 0.08],
        [0.01, 0.02, 0.07],
        [0.02, -0.01, 0.05],
        [0.03, 0.02, 0.06],
    ]
)
MASSES = np.array([6.0, 5.0, 4.0, 3.2, 2.2, 1.6, 1.0])  # kg
# Principal moments about the centre of mass, in kg m^2, along the axes of the link's frame.
INERTIAS = MASSES[:, None] * np.array([0.006, 0.005, 0.002])
GRAVITY = np.array([0.0, 0.0, -9.81])  # m / s^2

# Where states are drawn: the middle and half width of each position, the scales of the others.
MIDDLE = np.array([0.0, 0.3, 0.0, 1.2, 0.0, 0.5, 0.0])  # rad
HALF_WIDTH = np.array([0.7, 0.55, 0.65, 0.55, 0.85, 0.55, 0.9])  # rad
SPEED = np.array([0.6, 0.6, 0.7, 0.6, 0.9, 0.6, 1.1])  # rad / s, standard deviation
ACCELERATION = np.array([2.2, 2.4, 2.5, 2.2, 4.4, 2.2, 4.4])  # rad / s^2, standard deviation


def _rotations(axis: Floats, angle: Floats) -> Floats:
    """Rodrigues' matrices I + sin(a) [u] + (1 - cos(a)) [u]^2 of the angles (n,): (n, 3, 3)."""
    x, y, z = axis
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    sine, versine = np.sin(angle)[:, None, None], 1.0 - np.cos(angle)[:, None, None]
    rotations: Floats = np.eye(3) + sine * skew + versine * (skew @ skew)
    return rotations


def _turn(rotations: Floats, vectors: Floats) -> Floats:
    turned: Floats = np.einsum("nij,nj->ni", rotations, vectors)
    return turned


def _states(q: ArrayLike, qd: ArrayLike, qdd: ArrayLike) -> tuple[Floats, Floats, Floats]:
    q, qd, qdd = (np.asarray(value, dtype=np.float64) for value in (q, qd, qdd))
    joints = len(MASSES)
    if q.ndim != 2 or not 1 <= q.shape[1] <= joints or not q.shape == qd.shape == qdd.shape:
        raise ValueError(
            f"q, qd and qdd have shapes {q.shape}, {qd.shape}, {qdd.shape}; "
            f"give all three the one shape (n_samples, n_joints), n_joints in 1..{joints}"
        )
    return q, qd, qdd


def inverse_dynamics(q: ArrayLike, qd: ArrayLike, qdd: ArrayLike) -> Floats:
    """Joint torques of the arm by the recursive Newton-Euler algorithm.

    Outward, in the frame of link i, with R its rotation seen from link i - 1, u its axis, p its
    offset, r its centre of mass and v'_0 = -g, which makes gravity an acceleration of the base::

        w_i  = R'w + u qd_i
        w'_i = R'w' + (R'w) x u qd_i + u qdd_i
        v'_i = R'(v' + w' x p + w x (w x p))                 on the right: of link i - 1
        F_i  = m (v'_i + w'_i x r + w_i x (w_i x r)),   N_i = I w'_i + w_i x I w_i

    and inward, with R and p of joint i + 1::

        f_i = F_i + R f_{i+1},   n_i = N_i + r x F_i + R n_{i+1} + p x R f_{i+1},   tau_i = u.n_i

    Parameters
    ----------
    q, qd, qdd : array-like (n_samples, n_joints)
        Positions in rad, velocities in rad/s, accelerations in rad/s^2. Fewer than seven joints
        take the first links alone.

    Returns
    -------
    ndarray (n_samples, n_joints), float64
        Torques in N m.

    Raises
    ------
    ValueError
        Where the three shapes differ or are not those of 1 to 7 joints.

    References
    ----------
    Luh, Walker and Paul, "On-line computational scheme for mechanical manipulators", 1980;
    Featherstone, "Rigid body dynamics algorithms", 2008, chapter 5.
    """
    q, qd, qdd = _states(q, qd, qdd)
    n_samples, n_joints = q.shape
    omega, omega_dot = np.zeros((n_samples, 3)), np.zeros((n_samples, 3))
    acceleration = np.tile(-GRAVITY, (n_samples, 1))
    rotations, forces, moments = [], [], []
    for i in range(n_joints):
        axis, offset, centre = AXES[i], OFFSETS[i], CENTRES[i]
        rotation = _rotations(axis, q[:, i])
        back = rotation.transpose(0, 2, 1)
        lift = np.cross(omega_dot, offset) + np.cross(omega, np.cross(omega, offset))
        acceleration = _turn(back, acceleration + lift)
        carried = _turn(back, omega)
        spin = axis * qd[:, i : i + 1]
        omega_dot = _turn(back, omega_dot) + np.cross(carried, spin) + axis * qdd[:, i : i + 1]
        omega = carried + spin
        swing = np.cross(omega_dot, centre) + np.cross(omega, np.cross(omega, centre))
        force = MASSES[i] * (acceleration + swing)
        moment = INERTIAS[i] * omega_dot + np.cross(omega, INERTIAS[i] * omega)
        rotations.append(rotation)
        forces.append(force)
        moments.append(moment + np.cross(centre, force))
    torques = np.empty_like(q)
    f, n = np.zeros((n_samples, 3)), np.zeros((n_samples, 3))
    for i in reversed(range(n_joints)):
        if i + 1 < n_joints:
            f, n = _turn(rotations[i + 1], f), _turn(rotations[i + 1], n)
            n = n + np.cross(OFFSETS[i + 1], f)
        f, n = forces[i] + f, moments[i] + n
        torques[:, i] = n @ AXES[i]
    return torques


def make_arm(
    n_samples: int = 4000,
    *,
    n_joints: int = 7,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Inverse dynamics of a simulated serial arm: a state predicts the torque at each joint.

    ``tau = M(q) qdd + C(q, qd) qd + g(q)`` without noise (see `inverse_dynamics`). The arm is
    fixed; `random_state` draws the states: positions uniform within the joints' ranges,
    velocities and accelerations normal, all independent.

    Parameters
    ----------
    n_samples : int
        States to draw, at least 1.
    n_joints : int
        1 to 7: the first joints of the arm, with their links alone.
    random_state : int, RandomState or None
        Seed of the states.

    Returns
    -------
    Bunch
        ``data`` (n, 3 n_joints) DataFrame of pos1.. in rad, vel1.. in rad/s, acc1.. in rad/s^2;
        ``target`` (n, n_joints) DataFrame of torque1.. in N m; ``feature_names``,
        ``target_names``, ``DESCR``.

    Raises
    ------
    ValueError
        For `n_samples` below 1 or `n_joints` outside 1..7.

    References
    ----------
    Luh, Walker and Paul, 1980; Featherstone, 2008 (see `inverse_dynamics`).
    """
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples!r}; give an integer of at least 1")
    if not 1 <= n_joints <= len(MASSES):
        raise ValueError(f"n_joints is {n_joints!r}; give an integer in 1..{len(MASSES)}")
    rng = check_random_state(random_state)
    shape = (n_samples, len(MASSES))
    q = MIDDLE + HALF_WIDTH * rng.uniform(-1.0, 1.0, shape)
    qd = SPEED * rng.standard_normal(shape)
    qdd = ACCELERATION * rng.standard_normal(shape)
    q, qd, qdd = q[:, :n_joints], qd[:, :n_joints], qdd[:, :n_joints]
    joints = range(1, n_joints + 1)
    features = [f"{word}{j}" for word in ("pos", "vel", "acc") for j in joints]
    torques = [f"torque{j}" for j in joints]
    return Bunch(
        data=pd.DataFrame(np.hstack([q, qd, qdd]), columns=features),
        target=pd.DataFrame(inverse_dynamics(q, qd, qdd), columns=torques),
        feature_names=features,
        target_names=torques,
        DESCR=f"Inverse dynamics of a simulated {n_joints}-joint arm, noise-free: positions, "
        "velocities and accelerations predict the joint torques.",
    )
