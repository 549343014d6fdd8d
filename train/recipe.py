"""Typed recipes: one TOML file describes one experiment completely.

An unknown key, a value of the wrong type and a value out of range are errors that name the key, say
what was expected and suggest the nearest known key.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

SHIPPED = Path(__file__).parent / "recipes"


class RecipeError(ValueError):
    """A recipe that cannot be used; the message says where, what and what to do."""


@dataclass(frozen=True)
class DataRecipe:
    """Which images.

    ``digits`` needs no ``root``: scikit-learn carries it. ``cifar10`` and ``cifar100`` read
    torchvision's format or ``root/{train,test}/<class>/<image>``. ``images`` is your own: the same
    tree, or ``root/<class>/<image>``, of which every fifth image is held out; each image's centred
    square is scaled to ``size`` pixels. ``imagenet`` is ``root/{train,val}/<class>/<image>``.

    What does not fit into memory (ImageNet; own images of more than 4 GB) is read by ``workers``
    processes, and crops of random area are scaled to ``size`` in place of ``crop_padding``.
    """

    dataset: str = "digits"
    root: str = ""
    size: int = 32
    batch: int = 128
    flip: bool = False
    crop_padding: int = 0
    workers: int = 4


@dataclass(frozen=True)
class NetworkRecipe:
    """Attributes:
    stem_bits: of the first layer's weights, which keep a scale for each output. 16 stands for the
        full precision that papers leave there; with 8 it takes half the time on a device, and is
        trained with them.
    """

    name: str = "resnet20"
    stem_bits: int = 16


@dataclass(frozen=True)
class MethodRecipe:
    """What is trained and how; keys that a method does not use keep their defaults.

    Attributes:
        bits: the levels.
        distillation: lower levels also learn from a higher one, where the method does that.
        weight_sigmas: start of the weight range in standard deviations: 3 in the paper of MBQuant,
            1.494 is the step of least squared error for 4 levels of a Gaussian.
        activation_ranges: start of the activation ranges: "three-sigma" at every level as in the paper
            of MBQuant, or the "least-squares" range of each level's codes.
        calibration_images: images that start the activation ranges; 0 takes the method's constant.
        teacher: which higher level teaches: "auto" is the method's own choice.
        teacher_run: folder of a finished run that teaches every level: at its highest level, or in
            full precision when it has no quantised epochs. It has to know more than nothing, and no
            less than the network after its own pretraining (``train/teacher.py``).
        selection: branches of each level (MBQuant, as the following).
        join: of the branches' outputs.
        stem: one for all branches, or one for each "branch".
        shuffle: exchange channels between branches where the size is reduced.
        half: widths of the half branch of odd bit-widths: "uniform" halves the cost, "published" is
            the published code's, where that differs.
        ranges: a range of the weights for each "tensor" or for each "filter".
        balance: factor of the quantisers' learning rate from one level to the next lower one.
        quantizer: of weights in AdaBits.
        bands: of weights in the hot-swap reconstruction, or its controls.
    """

    name: str = "mbquant"
    bits: tuple[int, ...] = (2, 4, 6, 8)
    distillation: bool = True
    weight_sigmas: float = 3.0
    activation_ranges: str = "three-sigma"
    calibration_images: int = 512
    teacher: str = "auto"
    teacher_run: str = ""
    selection: str = "amortised"
    join: str = "mean"
    stem: str = "shared"
    shuffle: bool = False
    half: str = "uniform"
    ranges: str = "tensor"
    balance: float = 1.0
    quantizer: str = "centre"
    bands: str = "wavelet"


@dataclass(frozen=True)
class PretrainRecipe:
    """Full-precision training of the same multi-branch topology, quantisers off.

    ``init`` may name the safetensors file of a single-branch full-precision network of the same
    body. It is copied into every branch; ``init_noise`` times a fresh random initialisation is mixed
    into each copy, since identical branches that are always used together would stay identical.
    """

    epochs: int = 0
    lr: float = 0.1
    init: str = ""
    init_noise: float = 0.5


@dataclass(frozen=True)
class OptimRecipe:
    """Quantised training: an optimiser for the model, Adam for what the quantisers train.

    Attributes:
        schedule: of both learning rates: "cosine" to zero, or "step" to a tenth after a half and
            again after three quarters of the epochs. Pretraining always uses the cosine.
        norm_decay: whether weight decay covers normalisations and biases too.
        quantizer_lr: of the quantisers; their ranges are never decayed.
        clip_norm: the weights' gradient of a quantised step is scaled down to this norm; 0: never.
        compile: fuse the quantisers' passes.
        cuda_graph: replay the passes of a step as one CUDA graph (one process on one GPU).
        reestimate_batches: batches over which running statistics are averaged anew at the end.
    """

    epochs: int = 10
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    optimizer: str = "sgd"
    nesterov: bool = False
    schedule: str = "cosine"
    norm_decay: bool = True
    quantizer_lr: float = 1e-4
    clip_norm: float = 0.0
    precision: str = "float32"
    compile: bool = False
    cuda_graph: bool = False
    reestimate_batches: int = 50
    checkpoint_minutes: float = 5.0


@dataclass(frozen=True)
class Recipe:
    """One experiment."""

    name: str = "unnamed"
    seed: int = 1
    data: DataRecipe = field(default_factory=DataRecipe)
    network: NetworkRecipe = field(default_factory=NetworkRecipe)
    method: MethodRecipe = field(default_factory=MethodRecipe)
    pretrain: PretrainRecipe = field(default_factory=PretrainRecipe)
    train: OptimRecipe = field(default_factory=OptimRecipe)

    def fingerprint(self) -> str:
        """SHA-256 of the resolved recipe; equal recipes give equal fingerprints.

        The folders of the data and of a starting checkpoint, the workers that read images, and how
        often checkpoints are written do not change the result, so they are left out, as is whether
        steps are replayed.
        """
        neutral = dataclasses.replace(
            self,
            data=dataclasses.replace(self.data, root="", workers=0),
            pretrain=dataclasses.replace(self.pretrain, init=Path(self.pretrain.init).name),
            train=dataclasses.replace(self.train, checkpoint_minutes=0.0, cuda_graph=False),
        )
        return hashlib.sha256(to_toml(neutral).encode()).hexdigest()


_CHOICES: dict[str, tuple[str | int, ...]] = {
    "data.dataset": ("digits", "cifar10", "cifar100", "images", "imagenet"),
    "network.name": ("resnet20", "resnet8", "resnet18", "resnet34", "vgg11", "mobilenetv1"),
    "network.stem_bits": (8, 16),
    "method.name": ("mbquant", "dedicated", "any-precision", "adabits", "hot-swap"),
    "method.teacher": ("auto", "highest", "next", "none"),
    "method.selection": ("amortised", "serial"),
    "method.join": ("mean", "sum"),
    "method.stem": ("shared", "branch"),
    "method.half": ("uniform", "published"),
    "method.activation_ranges": ("three-sigma", "least-squares"),
    "method.ranges": ("tensor", "filter"),
    "method.quantizer": ("centre", "floor"),
    "method.bands": ("wavelet", "fixed", "random"),
    "train.optimizer": ("sgd", "adam"),
    "train.schedule": ("cosine", "step"),
    "train.precision": ("float32", "bfloat16"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "data.size": (8, 512),
    "data.batch": (2, 65536),
    "data.crop_padding": (0, 64),
    "data.workers": (0, 256),
    "method.weight_sigmas": (0.1, 10),
    "method.calibration_images": (0, 65536),
    "method.balance": (0.001, 1),
    "pretrain.epochs": (0, 100_000),
    "pretrain.lr": (0, 10),
    "pretrain.init_noise": (0, 1),
    "train.epochs": (0, 100_000),
    "train.lr": (0, 10),
    "train.momentum": (0, 1),
    "train.weight_decay": (0, 1),
    "train.quantizer_lr": (0, 1),
    "train.clip_norm": (0, 1e6),
    "train.reestimate_batches": (0, 100_000),
    "train.checkpoint_minutes": (0, 1e6),
}


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file, or a shipped one by name, and apply ``key=value`` overrides.

    Raises:
        RecipeError: for a file that is missing or not TOML, and for every wrong key or value.
    """
    file, tree = _read(str(path), Path())
    for override in overrides or []:
        _apply_override(tree, override)
    recipe: Recipe = _build(Recipe, tree, "", str(file))
    return recipe


def _read(name: str, beside: Path, depth: int = 0) -> tuple[Path, dict[str, Any]]:
    """The file of a recipe and its keys, on top of those of the recipe that it extends."""
    file = beside / name
    if not file.exists() and (SHIPPED / f"{name}.toml").exists():
        file = SHIPPED / f"{name}.toml"
    try:
        tree = tomllib.loads(file.read_text())
    except FileNotFoundError:
        names = ", ".join(sorted(str(p.relative_to(SHIPPED))[:-5] for p in SHIPPED.rglob("*.toml")))
        raise RecipeError(f"{name}: no such recipe; give a .toml file or one of: {names}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{file}: not readable as TOML: {error}") from None
    base = tree.pop("extends", None)
    if base is None:
        return file, tree
    if not isinstance(base, str) or depth == 8:
        raise RecipeError(
            f"{file}: extends: expected the name of a recipe that does not extend this"
        )
    _, merged = _read(base, file.parent, depth + 1)
    for key, value in tree.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merged[key] | value
        else:
            merged[key] = value
    return file, merged


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise RecipeError(f"--set {override}: expected key=value, such as train.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    node = tree
    *parents, leaf = key.strip().split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise RecipeError(f"--set {override}: '{parent}' is a value, not a table")
    node[leaf] = value


def _build(kind: type, tree: dict[str, Any], prefix: str, file: str) -> Any:
    hints = get_type_hints(kind)
    unknown = [key for key in tree if key not in hints]
    if unknown:
        key = unknown[0]
        near = difflib.get_close_matches(key, hints, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(hints)}"
        raise RecipeError(f"{file}: {prefix}{key}: unknown key; {hint}")
    values = {
        key: _convert(hints[key], value, f"{prefix}{key}", file) for key, value in tree.items()
    }
    return kind(**values)


def _convert(hint: Any, value: Any, key: str, file: str) -> Any:
    def wrong(expected: str) -> RecipeError:
        return RecipeError(f"{file}: {key}: expected {expected} (got {value!r})")

    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise wrong("a table")
        return _build(hint, value, f"{key}.", file)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint in (int, float, str, bool):
        if type(value) is not hint:
            raise wrong(
                {int: "an integer", float: "a number", str: "a string"}.get(hint, "true or false")
            )
    elif isinstance(value, list):
        known = range(1, 9)
        if not value or len(set(value)) != len(value) or any(v not in known for v in value):
            raise wrong("a list of different levels from 1 to 8 bits")
        value = tuple(sorted(value))
    else:
        raise wrong("a list of levels")
    choices = _CHOICES.get(key)
    if choices and value not in choices:
        names = [str(choice) for choice in choices]
        near = difflib.get_close_matches(str(value), names, n=1)
        hint_text = f"; did you mean '{near[0]}'?" if near else ""
        raise wrong(f"one of {', '.join(names)}{hint_text}")
    if key in _RANGES:
        low, high = _RANGES[key]
        if not low <= value <= high:
            raise wrong(f"a value from {low:g} to {high:g}")
    return value


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML, every key written out."""

    def literal(value: Any) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if isinstance(value, tuple):
            return "[" + ", ".join(map(literal, value)) + "]"
        return repr(value)

    lines: list[str] = []
    tables: list[str] = []
    for key, value in vars(recipe).items():
        if dataclasses.is_dataclass(value):
            tables.append(f"\n[{key}]")
            tables.extend(f"{name} = {literal(v)}" for name, v in vars(value).items())
        else:
            lines.append(f"{key} = {literal(value)}")
    return "\n".join(lines + tables) + "\n"


def difference(ours: Recipe, theirs: Recipe) -> list[str]:
    """Lines ``key: ours != theirs`` for every key in which two recipes differ."""

    def flatten(recipe: Recipe) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in vars(recipe).items():
            if dataclasses.is_dataclass(value):
                flat |= {f"{key}.{name}": v for name, v in vars(value).items()}
            else:
                flat[key] = value
        return flat

    left, right = flatten(ours), flatten(theirs)
    return [f"{key}: {left[key]!r} != {right[key]!r}" for key in left if left[key] != right[key]]
