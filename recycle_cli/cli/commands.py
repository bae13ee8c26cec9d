"""The commands: each parses, calls one function, shows what it returns."""

from dataclasses import replace
from typing import Annotated, Literal

import typer

from recycle_cli.cli import options as o
from recycle_cli.cli.app import app as app
from recycle_cli.reports import show
from recycle_cli.settings import (
    CorpusSettings,
    Metric,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
    ViewSettings,
)

CORPUS, MODEL, FILL, TRAIN, SCORE, VIEWS = (
    CorpusSettings(()),
    ModelSettings(),
    PrecomputeSettings(),
    TrainingSettings(),
    PredictSettings(),
    ViewSettings(),
)


@app.command()
def precompute(
    corpus: o.CorpusArgument,
    store: o.StoreArgument,
    model: o.Model = MODEL.name,
    cut: o.Cuts = list(FILL.cuts),  # noqa: B006 - Typer reads it, nobody changes it
    max_length: o.MaxLength = MODEL.max_length,
    dtype: o.Dtype = FILL.dtype,
    text_column: o.TextColumn = None,
    text_pair_column: o.TextPairColumn = None,
    image_column: o.ImageColumn = None,
    id_column: o.IdColumn = None,
    limit: o.Limit = None,
    on_error: o.OnError = CORPUS.on_error,
    failures: o.Failures = None,
    batch_tokens: o.BatchTokens = FILL.batch_tokens,
    segment_bytes: o.SegmentBytes = FILL.segment_bytes,
    codec: o.Codec = FILL.codec,
    max_disk: o.MaxDisk = FILL.max_disk,
    device: o.Device = MODEL.device,
    precision: o.Precision = MODEL.precision,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = False,
    weights: o.Weights = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    mean: o.Mean = None,
    std: o.Std = None,
    views: o.Views = VIEWS.views,
    augment: o.Augment = VIEWS.augment,
    as_json: o.Json = False,
) -> None:
    """Run the frozen trunk once over CORPUS and keep its activations in STORE; go on where an earlier run stopped."""
    from recycle_cli.precompute import precompute as run

    records = CorpusSettings(
        tuple(corpus),
        text_column,
        text_pair_column,
        None,
        id_column,
        limit,
        on_error,
        failures or o.failures_beside(store),
        image_column,
    )
    images = o.image_settings(weights, resize, crop, mean, std)
    network = ModelSettings(model, revision, max_length, trust_remote_code, device, precision, images)
    filling = PrecomputeSettings(
        tuple(cut),
        dtype,
        batch_tokens,
        segment_bytes=segment_bytes,
        codec=codec,
        max_disk=max_disk,
        views=ViewSettings(views, augment),
    )
    show(run(records, store, network, filling), as_json=as_json)


@app.command()
def finetune(
    context: typer.Context,
    data: o.DataArgument,
    output: Annotated[str, o.option("--output", "The RUN's folder")],
    store: Annotated[
        str | None, typer.Argument(metavar="[STORE]", help="Train from this store; without it, from the inputs")
    ] = None,
    evaluation: Annotated[str | None, o.option("--eval", "Labelled records to evaluate on after each epoch")] = None,
    task: o.Task = "text-classification",
    multi_label: o.MultiLabel = CORPUS.multi_label,
    loss: o.Loss = TRAIN.similarity.loss,
    margin: o.Margin = TRAIN.similarity.margin,
    temperature: o.Temperature = TRAIN.similarity.temperature,
    group_samples: o.GroupSamples = TRAIN.similarity.group_samples,
    embedding: o.Embedding = TRAIN.similarity.embedding.kind,
    embedding_size: o.EmbeddingSize = TRAIN.similarity.embedding.size,
    model: Annotated[str | None, o.option("--model", "Pretrained model; else the store's, else MiniLM")] = None,
    cut: o.Cut = None,
    epochs: Annotated[int, o.option("--epochs", "Passes over the data", min=1)] = TRAIN.epochs,
    batch_size: Annotated[int, o.option("--batch-size", "Samples a batch", min=1)] = TRAIN.batch_size,
    learning_rate: Annotated[float, o.option("--learning-rate", "Peak of the schedule", min=0.0)] = TRAIN.learning_rate,
    weight_decay: Annotated[
        float, o.option("--weight-decay", "AdamW's decay of matrices", min=0.0)
    ] = TRAIN.weight_decay,
    warmup_share: Annotated[
        float, o.option("--warmup-share", "Share of the steps with a rising learning rate", min=0.0, max=1.0)
    ] = TRAIN.warmup_share,
    max_grad_norm: Annotated[
        float, o.option("--max-grad-norm", "Clip the gradient's norm; 0 for never", min=0.0)
    ] = TRAIN.max_grad_norm,
    accumulation: Annotated[int, o.option("--accumulation", "Batches an optimizer step", min=1)] = TRAIN.accumulation,
    class_weights: Annotated[
        Literal["none", "balanced"], o.option("--class-weights", "balanced weighs classes by their frequency")
    ] = TRAIN.class_weights,
    metric: Annotated[
        Metric | None, o.option("--metric", "Chooses the best checkpoint; else macro_f1, or rrp for similarity")
    ] = TRAIN.metric,
    patience: Annotated[
        int,
        o.option(
            "--patience",
            "Stop at the end of an epoch after so many evaluations without improvement; 0 for never",
            min=0,
        ),
    ] = TRAIN.patience,
    eval_steps: Annotated[
        int, o.option("--eval-steps", "Evaluate every so many steps as well", min=0)
    ] = TRAIN.eval_steps,
    save_steps: Annotated[
        int, o.option("--save-steps", "Keep a checkpoint every so many steps as well", min=0)
    ] = TRAIN.save_steps,
    adapter: Annotated[
        Literal["none", "lora", "bottleneck"],
        o.option("--adapter", "Train few weights beside the pretrained layers: low-rank updates, or bottlenecks"),
    ] = TRAIN.adapter.kind,
    adapter_rank: Annotated[int, o.option("--adapter-rank", "Rank of LoRA's updates", min=1)] = TRAIN.adapter.rank,
    adapter_alpha: Annotated[
        int, o.option("--adapter-alpha", "Scale of LoRA's updates, divided by their rank", min=1)
    ] = TRAIN.adapter.alpha,
    adapter_width: Annotated[int, o.option("--adapter-width", "Width of the bottlenecks", min=1)] = TRAIN.adapter.width,
    adapter_layers: Annotated[
        str | None,
        o.option("--adapter-layers", "Endings of the names of the layers to adapt, as query,value; else all"),
    ] = None,
    adapter_dropout: Annotated[
        float, o.option("--adapter-dropout", "Dropout before the adapters", min=0.0, max=1.0)
    ] = TRAIN.adapter.dropout,
    adapter_save: Annotated[
        Literal["merged", "apart"],
        o.option("--adapter-save", "apart keeps the adapter in RUN/adapter; bottlenecks can only be kept so"),
    ] = TRAIN.adapter.save,
    seed: Annotated[
        int, o.option("--seed", "Of the new classifier, the shuffling and the dropout", min=0, max=2**32 - 1)
    ] = TRAIN.seed,
    order_seed: Annotated[
        int | None, o.option("--order-seed", "Of the shuffling alone; else --seed", min=0, max=2**32 - 1)
    ] = TRAIN.order_seed,
    heads: Annotated[
        str | None,
        o.option("--heads", "TOML file of several heads that train from one read; their RUNs are OUTPUT/NAME"),
    ] = None,
    on_missing: Annotated[
        Literal["fail", "compute", "skip"], o.option("--on-missing", "What to do with samples that the store lacks")
    ] = TRAIN.on_missing,
    parity_check: Annotated[
        bool, o.option("--parity-check/--no-parity-check", "Prove on a few samples that the stored rows are right")
    ] = TRAIN.parity_check,
    memory: o.Memory = TRAIN.memory,
    in_memory: Annotated[bool, o.option("--in-memory", "Read all rows into memory before training")] = TRAIN.in_memory,
    overwrite: Annotated[bool, o.option("--overwrite", "Replace the run that --output holds")] = False,
    resume: Annotated[bool, o.option("--resume", "Go on with the unfinished run that --output holds")] = False,
    tensorboard: Annotated[
        bool, o.option("--tensorboard/--no-tensorboard", "Log to TensorBoard where it is installed")
    ] = True,
    max_length: o.MaxLength = MODEL.max_length,
    text_column: o.TextColumn = None,
    text_pair_column: o.TextPairColumn = None,
    label_column: o.LabelColumn = None,
    image_column: o.ImageColumn = None,
    id_column: o.IdColumn = None,
    limit: o.Limit = None,
    on_error: o.OnError = CORPUS.on_error,
    device: o.Device = MODEL.device,
    precision: o.Precision = MODEL.precision,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = False,
    weights: o.Weights = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    mean: o.Mean = None,
    std: o.Std = None,
    head_batchnorm: o.HeadBatchnorm = MODEL.images.head_batchnorm,
    views: o.Views = VIEWS.views,
    augment: o.Augment = VIEWS.augment,
    mixup: Annotated[
        float, o.option("--mixup", "Mix the stored rows of two images, with shares of Beta(a, a); 0 for never", min=0.0)
    ] = TRAIN.mixup,
    cutmix: Annotated[
        float,
        o.option("--cutmix", "Put a box of another image's stored map in place; Beta(a, a); 0 for never", min=0.0),
    ] = TRAIN.cutmix,
    as_json: o.Json = False,
) -> None:
    """Train the layers after the cut from STORE; without STORE, from the inputs with --cut (0: the whole model)."""
    from recycle_cli.cli.heads import head_settings, training_settings
    from recycle_cli.finetune import Job
    from recycle_cli.finetune import finetune as run
    from recycle_cli.finetune import finetune_heads as run_heads

    columns = (text_column, text_pair_column, label_column, id_column)
    records = CorpusSettings((data,), *columns, limit, on_error, image_column=image_column, multi_label=multi_label)
    job = Job(
        data=records,
        output=output,
        store=store,
        evaluation=None if evaluation is None else replace(records, source=(evaluation,), limit=None),
        task=task,
        cut=cut,
        model_named=model is not None,
        overwrite=overwrite,
        resume=resume,
        tensorboard=tensorboard,
    )
    images = o.image_settings(weights, resize, crop, mean, std, head_batchnorm)
    network = ModelSettings(model or MODEL.name, revision, max_length, trust_remote_code, device, precision, images)
    if heads is None:
        show(run(job, network, training_settings(context.params)), as_json=as_json)
    else:
        show(run_heads(job, network, head_settings(heads, context)), as_json=as_json)


@app.command()
def predict(
    data: o.CorpusArgument,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run, as `finetune --output` left it")],
    store: Annotated[str | None, o.option("--store", "Take what this store holds instead of computing it")] = None,
    output: Annotated[
        str | None,
        o.option("--output", "Predictions as .csv, .jsonl or .parquet; else RUN/predictions.csv (vectors: .parquet)"),
    ] = None,
    threshold: Annotated[
        float, o.option("--threshold", "Of a RUN with several labels: the score that predicts one", min=0.0, max=1.0)
    ] = SCORE.threshold,
    write_back: Annotated[bool, o.option("--write-back", "Add to the store what it lacked")] = False,
    parity_check: Annotated[
        bool, o.option("--parity-check/--no-parity-check", "Prove on a few hits that the stored rows are right")
    ] = SCORE.parity_check,
    text_column: o.TextColumn = None,
    text_pair_column: o.TextPairColumn = None,
    label_column: o.LabelColumn = None,
    image_column: o.ImageColumn = None,
    id_column: o.IdColumn = None,
    limit: o.Limit = None,
    on_error: o.OnError = CORPUS.on_error,
    failures: o.Failures = None,
    batch_tokens: o.BatchTokens = SCORE.batch_tokens,
    device: o.Device = MODEL.device,
    precision: o.Precision = MODEL.precision,
    trust_remote_code: o.TrustRemoteCode = False,
    as_json: o.Json = False,
) -> None:
    """Predict with RUN: hits from the store, misses through the trunk, the same answers either way."""
    from recycle_cli.predict import predict as score

    records = CorpusSettings(
        tuple(data),
        text_column,
        text_pair_column,
        label_column,
        id_column,
        limit,
        on_error,
        failures,
        image_column,
    )
    network = ModelSettings(run, None, None, trust_remote_code, device, precision)
    scoring = PredictSettings(
        batch_tokens=batch_tokens, write_back=write_back, threshold=threshold, parity_check=parity_check
    )
    show(score(records, run, store, output, network, scoring), as_json=as_json)
