"""Recording episodes in any gymnasium environment that has pixels, as a file :func:`open_episodes` reads."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from noumena.core.seeding import fold
from noumena.worldmodels.episodes.pictures import pictures_of
from noumena.worldmodels.episodes.source import ACTIONS, FRAMES, STATE

Policy = Callable[[Any, np.random.Generator], Any]
"""Takes an observation and a generator of random numbers, gives an action."""

# Keys of observations that are dictionaries, in the order in which they are looked for.
_PICTURE_KEYS = ("pixels", "observation", "image", "rgb")
_STATE_KEYS = ("state", "observation")


def collect(
    env: Any,
    out: str | Path,
    *,
    episodes: int = 100,
    max_steps: int = 200,
    seed: int = 0,
    policy: Literal["random"] | Policy = "random",
    size: int | list[int] | None = None,
    gray: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Run an environment and write what is seen and done to an HDF5 file, whole or not at all.

    Frames are the observation where that is a picture (or the ``pixels``, ``observation``, ``image`` or ``rgb`` of a
    dictionary), otherwise what the environment renders. Where the observation is a vector (or a dictionary has one
    under ``state`` or ``observation``), it is kept as ``state``, for probes. The file has a group for each episode:
    ``episode_0/frames`` (uint8, one more than actions), ``actions``, ``state``. Episode ``k`` is a function of ``seed``
    and ``k``, as far as the environment's seeding goes.

    Args:
        env: id of an environment (those of this package included), or an environment.
        out: the file, ``.hdf5`` or ``.h5``; an existing one is replaced.
        episodes: how many.
        max_steps: most actions of an episode, which may end before.
        seed: of the environment and of the policy.
        policy: ``random``: uniform over the space of actions; or a function.
        size: bring frames to a square of this side, or [height, width], in pixels.
        gray: make colours grey.
        options: further arguments of ``gymnasium.make``.
        progress: called with the number of finished episodes and ``episodes``.

    Returns:
        ``episodes``, ``frames``, ``shape`` of a frame and ``output``.

    Raises:
        ConfigError: an option is out of range, or the environment is not known.
        NotSupportedError: gymnasium is missing, or the environment has no pixels or another kind of actions.
        ArtifactError: the file cannot be written.
    """
    for name, value in (("episodes", episodes), ("max_steps", max_steps)):
        if value < 1:
            raise ConfigError(f"{name}={value}: expected at least 1.")
    path = Path(out).expanduser()
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise ConfigError(f"{path}: expected a file .hdf5 or .h5, found '{path.suffix}'. Rename it.")
    made = _make(env, options) if isinstance(env, str) else None
    world = env if made is None else made
    try:
        recorder = _Recorder(world, policy, max_steps, size, gray)
        facts = {"environment": env if isinstance(env, str) else str(env), "seed": seed, "max_steps": max_steps}
        with _missing_packages_named(str(facts["environment"])):
            frames = _write(path, recorder, episodes, seed, facts, progress)
    finally:
        if made is not None:
            made.close()
    return {"episodes": episodes, "frames": frames, "shape": list(recorder.shape), "output": str(path)}


@dataclass
class _Episode:
    frames: np.ndarray
    actions: np.ndarray
    state: np.ndarray | None


class _Recorder:
    """Runs episodes of one environment."""

    def __init__(
        self, env: Any, policy: Literal["random"] | Policy, max_steps: int, size: int | list[int] | None, gray: bool
    ) -> None:
        self._env = env
        self._policy = policy
        self._max_steps = max_steps
        self._size = size
        self._gray = gray
        self._discrete = _is_discrete(env.action_space)
        self._picture = _picture_key(env.observation_space)
        if self._picture is None and env.render_mode != "rgb_array":
            raise NotSupportedError(
                f"{env}: its observations are no pictures and it does not render any. Make it with "
                "render_mode='rgb_array'."
            )
        self._state = _state_key(env.observation_space)
        self.shape: tuple[int, ...] = ()

    def run(self, seed: int) -> _Episode:
        """One episode, from the reset to its end or ``max_steps``."""
        # Environments take seeds of 32 bits.
        observation, _ = self._env.reset(seed=seed % 2**31)
        self._env.action_space.seed(fold(seed, 1) % 2**31)
        generator = np.random.default_rng(fold(seed, 2))
        seen, done = [observation], []
        shown = [self._shown(observation)]
        for _ in range(self._max_steps):
            action = self._env.action_space.sample() if self._policy == "random" else self._act(observation, generator)
            observation, _, terminated, truncated, _ = self._env.step(action)
            seen.append(observation)
            done.append(action)
            shown.append(self._shown(observation))
            if terminated or truncated:
                break
        actions = np.array(done, np.int64 if self._discrete else np.float32)
        state = None
        if self._state is not None:
            state = np.stack([np.asarray(_at(one, self._state), np.float32) for one in seen])
        return _Episode(
            self._frames(np.stack(shown)), actions if self._discrete else actions.reshape(len(done), -1), state
        )

    def _act(self, observation: Any, generator: np.random.Generator) -> Any:
        assert callable(self._policy)
        return self._policy(observation, generator)

    def _shown(self, observation: Any) -> np.ndarray:
        picture = self._env.render() if self._picture is None else _at(observation, self._picture)
        # A copy: some environments paint the next frame over the last one.
        return np.array(picture)

    def _frames(self, shown: np.ndarray) -> np.ndarray:
        """Pictures as stored: uint8, shape (time, height, width, channels)."""
        channels = None if shown.ndim == 4 else "none"
        where = f"{self._env}: its pictures"
        pictures = pictures_of(shown.shape[1:], shown.dtype, where, channels=channels, size=self._size, gray=self._gray)
        self.shape = pictures.frame
        return pictures(shown).permute(0, 2, 3, 1).contiguous().numpy()


def _make(name: str, options: Mapping[str, Any] | None) -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise NotSupportedError("collecting episodes needs gymnasium. Install it: pip install 'noumena[rl]'") from error
    if name.startswith("noumena/"):
        from noumena.worldmodels.environments.gym import register

        register()
    arguments: dict[str, Any] = {"render_mode": "rgb_array", **(options or {})}
    try:
        return gymnasium.make(name, **arguments)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise ConfigError(f"the environment '{name}' cannot be made: {error}") from error


@contextmanager
def _missing_packages_named(environment: str) -> Iterator[None]:
    """Environments may ask for their packages as late as the first picture."""
    try:
        yield
    except Exception as error:
        # By name: a world of one's own may do without gymnasium.
        if type(error).__name__ != "DependencyNotInstalled":
            raise
        raise NotSupportedError(f"the environment '{environment}' needs a package that is missing: {error}") from error


def _write(
    path: Path,
    recorder: _Recorder,
    episodes: int,
    seed: int,
    facts: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
) -> int:
    """Record into a file beside ``path`` and put it in its place; the number of frames."""
    import h5py

    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    frames = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(beside, "w") as file:
            file.attrs.update(facts)
            for number in range(episodes):
                episode = recorder.run(fold(seed, number))
                group = file.create_group(f"episode_{number}")
                chunk = (1, *episode.frames.shape[1:])
                group.create_dataset(FRAMES, data=episode.frames, chunks=chunk, compression="gzip", compression_opts=1)
                group.create_dataset(ACTIONS, data=episode.actions)
                if episode.state is not None:
                    group.create_dataset(STATE, data=episode.state)
                frames += len(episode.frames)
                if progress is not None:
                    progress(number + 1, episodes)
        beside.replace(path)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror or error}. Free space or choose a folder you may write to; what was "
            "there before is untouched."
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return frames


def _is_discrete(space: Any) -> bool:
    kind = type(space).__name__
    if kind not in ("Box", "Discrete"):
        raise NotSupportedError(
            f"actions of a {kind} space are not recorded; expected Box or Discrete. Wrap the environment, e.g. with "
            "gymnasium.wrappers.TransformAction."
        )
    if kind == "Discrete" and space.start != 0:
        raise NotSupportedError(f"expected actions counted from 0, got {space}. Wrap the environment.")
    return kind == "Discrete"


def _picture_key(space: Any) -> str | None:
    """Where a picture is in an observation: "" is all of it; ``None`` if nowhere."""
    return _key(space, _PICTURE_KEYS, lambda shape, dtype: len(shape) in (2, 3) and dtype == np.uint8)


def _state_key(space: Any) -> str | None:
    return _key(space, _STATE_KEYS, lambda shape, dtype: len(shape) == 1 and dtype.kind == "f")


def _key(space: Any, keys: tuple[str, ...], fits: Callable[[tuple[int, ...], np.dtype], bool]) -> str | None:
    # Of a space of dictionaries, `in` asks whether it holds an observation, not a key.
    inner: Mapping[str, Any] = space.spaces if isinstance(getattr(space, "spaces", None), Mapping) else {"": space}
    for key in ("", *keys):
        if key in inner and type(inner[key]).__name__ == "Box" and fits(inner[key].shape, inner[key].dtype):
            return key
    return None


def _at(observation: Any, key: str) -> Any:
    return observation[key] if key else observation
