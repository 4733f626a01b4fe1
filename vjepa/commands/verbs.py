"""The table of verbs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verb:
    """A verb: its summary, its function ("module:function") and an example to paste.

    `positional` names the parameters that are given without a flag, separated by spaces. A `forwards` function
    gets `(verb, argv)` unchanged and parses them itself, as LightningCLI does; for any other function a parser is
    made from its signature. `numbers` maps flags that take several numbers, separated by spaces, to settings.
    `--out` is a folder, which also gets result.json, unless `writes_file` says that it is a file.
    `described` is the function whose flags stand first in the help of a verb that forwards.
    """

    summary: str
    target: str
    example: str
    positional: str | None = None
    forwards: bool = False
    numbers: dict[str, str] = field(default_factory=dict)
    described: str | None = None
    writes_file: bool = False


VERBS = {
    "fit": Verb(
        "pre-train a model as a recipe says",
        "vjepa.commands.fit:main",
        "vjepa fit --config configs/quickstart.yaml --trainer.default_root_dir runs/quickstart",
        forwards=True,
    ),
    "validate": Verb(
        "loss and health of a checkpoint on held-out clips",
        "vjepa.commands.fit:main",
        "vjepa validate --config configs/quickstart.yaml --ckpt_path last",
        forwards=True,
    ),
    "estimate": Verb(
        "parameters, FLOPs, memory, the batch that fits and the days that a recipe takes",
        "vjepa.commands.estimate:main",
        "vjepa estimate --config configs/k400.yaml --gpus 8 --memory 80",
        forwards=True,
        described="vjepa.commands.estimate:Estimator.estimate",
    ),
    "probe": Verb(
        "train and test probes on a frozen encoder",
        "vjepa.commands.probe:probe",
        "vjepa probe --encoder runs/quickstart/latest/export --train data/train.csv --val data/val.csv --out probe",
        numbers={"lr": "grid.lr", "weight_decay": "grid.weight_decay", "layers": "layers"},
    ),
    "classify": Verb(
        "label videos with a trained probe",
        "vjepa.commands.classify:classify",
        "vjepa classify --probe runs/probe clip.mp4 other.mp4",
        positional="videos",
    ),
    "extract": Verb(
        "write frozen features of videos",
        "vjepa.commands.extract:extract",
        "vjepa extract --encoder runs/quickstart/latest/export --data data/val.csv --out runs/features",
    ),
    "search": Verb(
        "find the clips most like a video, by their features",
        "vjepa.commands.search:search",
        "vjepa search clip.mp4 --features runs/features --top 5",
        positional="query",
    ),
    "data check": Verb(
        "decode every clip of a manifest once and list what is broken",
        "vjepa.commands.data_check:check_command",
        "vjepa data check data/train.csv --out runs/check",
        positional="source",
    ),
    "data index": Verb(
        "keep where the frames of a manifest's videos are, so that opening one is cheap",
        "vjepa.commands.data_index:index_command",
        "vjepa data index data/train.csv --out data/train.index",
        positional="source",
        writes_file=True,
    ),
    "data shard": Verb(
        "write the videos of a manifest as WebDataset tar shards",
        "vjepa.commands.data_shard:shard_command",
        "vjepa data shard data/train.csv --out data/shards",
        positional="source",
    ),
    "data world": Verb(
        "generate labelled videos of a small physical world",
        "vjepa.commands.data_world:world_command",
        "vjepa data world --out data/world",
    ),
    "data manifest": Verb(
        "write the manifests of a public data set from its own annotation",
        "vjepa.commands.data_manifest:manifest_command",
        "vjepa data manifest --dataset ssv2 --root data/ssv2 --out data/ssv2_manifests",
    ),
    "demo": Verb(
        "offline tour: generate, pre-train, probe, extract, picture",
        "vjepa.commands.demo:demo",
        "vjepa demo --out runs/demo",
    ),
    "doctor": Verb(
        "what works here: devices, decoders, attention kernels, memory, versions",
        "vjepa.commands.doctor:doctor",
        "vjepa doctor",
    ),
    "inspect": Verb(
        "what a checkpoint holds",
        "vjepa.commands.inspect:inspect",
        "vjepa inspect runs/quickstart/latest/export",
        positional="ckpt",
    ),
    "convert": Verb(
        "write a checkpoint in another format: native, meta or hf",
        "vjepa.commands.convert:convert",
        "vjepa convert runs/quickstart/latest/export runs/quickstart-hf --to hf",
        positional="src dst",
    ),
}

# what the verbs are called elsewhere: a wrong verb that is near one of these words means ours
OTHER_WORDS = {
    "train": "fit",
    "pretrain": "fit",
    "evaluate": "validate",
    "predict": "classify",
    "infer": "classify",
    "embed": "extract",
    "features": "extract",
    "find": "search",
    "export": "convert",
}
