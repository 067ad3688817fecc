"""The published update rules in NumPy, float64, as the papers write them.

A rule takes a parameter's state (a dict, empty at first), the parameter, its gradient and the number of the step from
1, and returns the parameter's next value.
"""

from __future__ import annotations

import numpy as np

from graphc import optimizers


def sgd(state, p, g, t, rate=0.1, momentum=0.0, nesterov=False):
    """Sutskever et al. 2013, equations 1 to 4."""
    v = momentum * state.get("v", 0.0) - rate * g
    state["v"] = v
    return p + (momentum * v - rate * g if nesterov else v)


def moments(state, g, beta_1, beta_2):
    m = beta_1 * state.get("m", 0.0) + (1 - beta_1) * g
    v = beta_2 * state.get("v", 0.0) + (1 - beta_2) * g * g
    state.update(m=m, v=v)
    return m, v


def adam(state, p, g, t, rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False):
    """Kingma and Ba 2015, algorithm 1 with the order of computation of its section 2; Reddi et al. 2018, algorithm 2."""
    m, v = moments(state, g, beta_1, beta_2)
    if amsgrad:
        v = state["largest"] = np.maximum(state.get("largest", 0.0), v)
    return p - rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon)


def adamw(state, p, g, t, rate=0.01, decay=0.1):
    """Loshchilov and Hutter 2019, algorithm 2: the decayed weight and Adam's step from it."""
    step = adam(state, np.zeros_like(p), g, t, rate)
    return (1 - rate * decay) * p + step


def nadam(state, p, g, t, rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Dozat 2016, algorithm 2, with momentum mu_t = beta_1 (1 - 0.96**t / 2)."""
    mu = [beta_1 * (1 - 0.5 * 0.96**i) for i in range(1, t + 2)]
    m, v = moments(state, g, beta_1, beta_2)
    m_hat = mu[t] * m / (1 - np.prod(mu)) + (1 - mu[t - 1]) * g / (1 - np.prod(mu[:t]))
    return p - rate * m_hat / (np.sqrt(v / (1 - beta_2**t)) + epsilon)


def adamax(state, p, g, t, rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Kingma and Ba 2015, algorithm 2."""
    m = state["m"] = beta_1 * state.get("m", 0.0) + (1 - beta_1) * g
    u = state["u"] = np.maximum(beta_2 * state.get("u", 0.0), np.abs(g))
    return p - rate / (1 - beta_1**t) * m / (u + epsilon)


def lamb(state, p, g, t, rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """You et al. 2020, algorithm 2, without decay and with the identity as phi."""
    m, v = moments(state, g, beta_1, beta_2)
    r = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
    return p - rate * np.sqrt(np.sum(p**2)) / np.sqrt(np.sum(r**2)) * r


def rmsprop(state, p, g, t, rate=0.01, rho=0.9, epsilon=1e-7, momentum=0.0, centered=False):
    """Tieleman and Hinton 2012, slide 29; Graves 2013, equations 38 to 41."""
    n = state["n"] = rho * state.get("n", 0.0) + (1 - rho) * g**2
    mean = state["g"] = rho * state.get("g", 0.0) + (1 - rho) * g
    change = rate * g / np.sqrt(n - (mean**2 if centered else 0.0) + epsilon)
    change = state["d"] = momentum * state.get("d", 0.0) + change
    return p - change


def adagrad(state, p, g, t, rate=0.01, first=0.1, epsilon=1e-7):
    """Duchi et al. 2011, figure 1, diagonal."""
    total = state["s"] = state.get("s", first) + g**2
    return p - rate * g / np.sqrt(total + epsilon)


def adadelta(state, p, g, t, rate=1.0, rho=0.95, epsilon=1e-7):
    """Zeiler 2012, algorithm 1."""
    squares = state["g"] = rho * state.get("g", 0.0) + (1 - rho) * g**2
    change = -np.sqrt(state.get("x", 0.0) + epsilon) / np.sqrt(squares + epsilon) * g
    state["x"] = rho * state.get("x", 0.0) + (1 - rho) * change**2
    return p + rate * change


def ftrl(state, p, g, t, rate=0.1, first=0.1, l1=0.01, l2=0.02, beta=0.3):
    """McMahan et al. 2013, algorithm 1; their alpha is the rate, and their l2 counts half of Keras's."""
    n = state.get("n", first)
    sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / rate
    z = state["z"] = state.get("z", 0.0) + g - sigma * p
    state["n"] = n + g**2
    step = -(z - np.sign(z) * l1) / ((beta + np.sqrt(state["n"])) / rate + 2 * l2)
    return np.where(np.abs(z) <= l1, 0.0, step)


def adafactor(state, p, g, t, rate=0.05, epsilon_1=1e-30, epsilon_2=1e-3, threshold=1.0):
    """Shazeer and Stern 2018, algorithms 4 and 5, with sums in place of means, as in the paper."""
    beta = 1 - t**-0.8
    squares = g**2 + epsilon_1
    if p.ndim == 2:
        r = state["r"] = beta * state.get("r", 0.0) + (1 - beta) * squares.sum(axis=1)
        c = state["c"] = beta * state.get("c", 0.0) + (1 - beta) * squares.sum(axis=0)
        v = np.outer(r, c) / r.sum()
    else:
        v = state["v"] = beta * state.get("v", 0.0) + (1 - beta) * squares
    u = g / np.sqrt(v)
    u = u / max(1.0, np.sqrt(np.mean(u**2)) / threshold)
    return p - max(epsilon_2, np.sqrt(np.mean(p**2))) * min(rate, 1 / np.sqrt(t)) * u


def lion(state, p, g, t, rate=0.01, beta_1=0.9, beta_2=0.99):
    """Chen et al. 2023, algorithm 2."""
    m = state.get("m", 0.0)
    state["m"] = beta_2 * m + (1 - beta_2) * g
    return p - rate * np.sign(beta_1 * m + (1 - beta_1) * g)


def muon(state, p, g, t, rate=0.01, decay=0.004, momentum=0.95, nesterov=True, rms=0.2):
    """Jordan et al. 2024 and Liu et al. 2025, by the singular values that the iteration never computes."""
    p = p - p * decay * rate
    if p.ndim != 2:
        return adam(state, p, g, t, rate=rate)
    m = state["m"] = momentum * state.get("m", 0.0) + g
    u = g + momentum * m if nesterov else m
    left, values, right = np.linalg.svd(u / (np.linalg.norm(u) + 1e-7), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return p - rate * rms * np.sqrt(max(p.shape)) * (left * values) @ right


def decayed(rule, rate, decay):
    """Decay before the step, in proportion to the rate."""
    return lambda state, p, g, t: rule(state, p - p * decay * rate, g, t)


RULES = {
    "sgd": (lambda: optimizers.SGD(0.1), sgd),
    "momentum": (lambda: optimizers.SGD(0.1, momentum=0.9), lambda *a: sgd(*a, momentum=0.9)),
    "nesterov": (
        lambda: optimizers.SGD(0.1, 0.9, nesterov=True),
        lambda *a: sgd(*a, momentum=0.9, nesterov=True),
    ),
    "sgd decay": (lambda: optimizers.SGD(0.1, weight_decay=0.05), decayed(sgd, 0.1, 0.05)),
    "adam": (lambda: optimizers.Adam(0.01), adam),
    "adam betas": (
        lambda: optimizers.Adam(0.01, beta_1=0.5, beta_2=0.9, epsilon=1e-3),
        lambda *a: adam(*a, beta_1=0.5, beta_2=0.9, epsilon=1e-3),
    ),
    "adam decay": (lambda: optimizers.Adam(0.01, weight_decay=0.1), decayed(adam, 0.01, 0.1)),
    "amsgrad": (
        lambda: optimizers.Adam(0.01, beta_2=0.7, amsgrad=True),
        lambda *a: adam(*a, beta_2=0.7, amsgrad=True),
    ),
    "adamw": (lambda: optimizers.AdamW(0.01, weight_decay=0.1), adamw),
    "nadam": (lambda: optimizers.Nadam(0.01), nadam),
    "adamax": (lambda: optimizers.Adamax(0.01, beta_2=0.8), lambda *a: adamax(*a, beta_2=0.8)),
    "lamb": (lambda: optimizers.Lamb(0.01), lamb),
    "rmsprop": (lambda: optimizers.RMSprop(0.01), rmsprop),
    "rmsprop centered": (
        lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
        lambda *a: rmsprop(*a, momentum=0.5, centered=True),
    ),
    "adagrad": (lambda: optimizers.Adagrad(0.01), adagrad),
    "adadelta": (lambda: optimizers.Adadelta(1.0), adadelta),
    "ftrl": (
        lambda: optimizers.Ftrl(0.1, l1_regularization_strength=0.01, l2_regularization_strength=0.02, beta=0.3),
        ftrl,
    ),
    "adafactor": (lambda: optimizers.Adafactor(0.05), adafactor),
    "lion": (lambda: optimizers.Lion(0.01), lion),
    "muon": (lambda: optimizers.Muon(0.01), muon),
    "muon plain": (
        lambda: optimizers.Muon(0.01, weight_decay=None, adam_weight_decay=None, nesterov=False, rms_rate=5**-0.5),
        lambda *a: muon(*a, decay=0.0, nesterov=False, rms=5**-0.5),
    ),
}
"""Each optimizer and the rule that it must follow."""
