"""How an arm of class_images.py makes images: a preset's density by `split`, or Lucid's ascent."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.common import correlation
from ppl_cnn.inference.sampling.methods import method_for
from ppl_cnn.inference.sampling.starts.optimum import randomize_then_optimize
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.references.spectral import Spectral
from ppl_cnn.models.references.transforms import WHITE
from ppl_cnn.models.units.views import averaged

JITTER, GROWTH, TURN = 0.06, (0.9, 1.1), 10.0
"""Lucid's transforms: shift as a part of the side, scales, degrees."""


class Sampled(NamedTuple):
    """A pair of chains of a class."""

    images: np.ndarray
    """uint8 RGB (chain, row, col, 3)."""
    gradients: int
    """Gradients of the network, for each chain."""
    more: dict
    """What else the record should say."""


def keys_of(seed, pair):
    """A key for each of the two chains of a pair."""
    return jax.random.split(jax.random.key(seed), 2 * pair + 2)[2 * pair :]


def shown(x, preprocessing):
    """Images in pixel units minus the mean as uint8 RGB."""
    pixels = np.asarray(x) + np.asarray(preprocessing.mean, np.float32)
    if preprocessing.order == "BGR":
        pixels = pixels[..., ::-1]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


class PresetDensity:
    """A preset's density, compiled once for all classes, and its kernel and warm-up."""

    def __init__(self, network, preset):
        network = network if preset.size is None else network.resized(preset.size)
        self.views = max(preset.warps, 1)
        self._reference: Any = parse_reference(preset.reference)
        self._temperature = preset.temperature
        units = network.units("class:0-999", target=preset.target)
        self._units = [averaged(unit, preset.warps, preset.smooth) for unit in units]
        density = self._density(0)
        self.shape, self._preprocessing = density.latent_shape, density.unit.preprocessing
        self._push = jax.jit(density.push)
        self._ascend = jax.jit(jax.vmap(partial(randomize_then_optimize, density), (None, 0)))
        method: Any = method_for(density, preset.kernel)
        kernel, self._warmup = method.bind(density), preset.warmup
        self._init = jax.jit(
            lambda keys, z, params: kernel.init(keys, preset.warmup, z, (params,), {})
        )
        self._move = jax.jit(lambda state, params: kernel.sample(state, (params,), {}))

    def _density(self, index):
        return TiltedDensity(self._units[index], self._reference, self._temperature)

    def noise(self, index, pair):
        """A draw of the reference for each chain."""
        return jax.vmap(partial(jax.random.normal, shape=self.shape))(keys_of(index, pair))

    def images(self, z):
        return shown(self._push(z), self._preprocessing)

    def started(self, index, pair):
        """The latents of vivid's starts."""
        return self._ascend(self._density(index).params, self.noise(index, pair))

    def moved(self, index, pair, z, gradients):
        """The chains after at most so many gradients of the network, and what became of them."""
        params = self._density(index).params
        state = self._init(keys_of(index + 1000, pair), z, params)
        spent, acceptance, responses = self.views, [], [state.tilt]
        while spent + self.views * _most_steps(state) <= gradients:
            state = self._move(state, params)
            spent += int(state.num_steps.max()) * self.views
            acceptance.append(state.accept_prob)
            responses.append(state.tilt)
        settled = np.asarray(acceptance[self._warmup :] or acceptance[-1:])
        similar = [correlation(a, b) for a, b in zip(z, state.z, strict=True)]
        response = self._temperature * np.mean(np.asarray(responses), axis=1)
        more = {
            "transitions": len(acceptance),
            "acceptance": round(float(settled.mean()), 3),
            "step_size": round(float(state.adapt_state.step_size[0]), 5),
            "correlation_with_start": round(float(np.mean(similar)), 3),
            "response": [round(float(each), 2) for each in response],
        }
        return state.z, spent, more


def _most_steps(state):
    """The most steps that any chain's next trajectory may have: its angle is jittered by half."""
    tuned = state.adapt_state
    return int(np.ceil(np.max(1.5 * np.asarray(tuned.angle) / np.asarray(tuned.step_size))))


class Lucid:
    """Activation maximisation as Lucid does it."""

    def __init__(self, network, target, size, steps):
        self._unit = network.resized(size).unit("class:0", target=target)
        self._units = network.resized(size).units("class:0-999", target=target)
        self._size, self._steps = size, steps
        frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
        self._scale = (1 / np.maximum(frequencies, 1 / size))[..., None].astype(np.float32)
        covariance = np.asarray(Spectral().covariance)
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(values)
        self._colours = (root / np.linalg.norm(root, axis=0).max()).astype(np.float32)
        self._ascend = jax.jit(jax.vmap(self._ascent, (None, 0)))

    def _pixels(self, coefficients):
        """(row, col, channel) of the network, minus its mean."""
        spectrum = (coefficients[0] + 1j * coefficients[1]) * self._scale
        image = jnp.fft.irfft2(spectrum, (self._size, self._size), axes=(0, 1), norm="ortho")
        rgb = jax.nn.sigmoid(image @ self._colours.T / 4) * WHITE  # their code has this 4
        unit = self._unit.preprocessing
        ordered = rgb[..., ::-1] if unit.order == "BGR" else rgb
        return ordered - jnp.asarray(unit.mean)[None, None]

    def _transformed(self, x, key):
        """Under a random shift, scale and turn; what lies beyond the border is the mean."""
        side = self._size
        shift, scale, turn = jax.random.split(key, 3)
        away = jax.random.uniform(shift, (2,), minval=-JITTER, maxval=JITTER) * side
        angle = jnp.deg2rad(jax.random.uniform(turn, minval=-TURN, maxval=TURN))
        growth = jax.random.uniform(scale, minval=GROWTH[0], maxval=GROWTH[1])
        row, col = (jnp.arange(side) - (side - 1) / 2 - each for each in away)
        row, col = row[:, None], col[None, :]
        cos, sin = jnp.cos(angle) / growth, jnp.sin(angle) / growth
        places = [cos * row - sin * col, sin * row + cos * col]
        places = [place + (side - 1) / 2 for place in places]
        sample = partial(jax.scipy.ndimage.map_coordinates, order=1, mode="constant")
        return jnp.stack([sample(channel, places) for channel in jnp.unstack(x, axis=2)], axis=2)

    def _ascent(self, params, key):
        first, steps = jax.random.split(key)
        shape = (2, self._size, self._size // 2 + 1, 3)
        coefficients = 0.01 * jax.random.normal(first, shape)
        rule = optax.adam(0.05)

        def loss(coefficients, key):
            view = self._transformed(self._pixels(coefficients), key)
            return -self._unit.score(params, view)

        def step(index, carry):
            coefficients, state = carry
            gradient = jax.grad(loss)(coefficients, jax.random.fold_in(steps, index))
            change, state = rule.update(gradient, state)
            return optax.apply_updates(coefficients, change), state

        begun = coefficients, rule.init(coefficients)
        return self._pixels(jax.lax.fori_loop(0, self._steps, step, begun)[0])

    def sampled(self, index, pair):
        images = self._ascend(self._units[index].params, keys_of(index, pair))
        return Sampled(shown(images, self._unit.preprocessing), self._steps, {})
