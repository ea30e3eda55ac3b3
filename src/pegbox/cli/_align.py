from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._inputs import metrics_files
from pegbox.cli._options import check_free, check_least, check_writable, emit, first, names, say
from pegbox.errors import UsageError

if TYPE_CHECKING:
    from pegbox.rlhf import Alignment

# Characters of a prompt or an answer that are shown.
_SHOWN = 400


def ppo(
    data: str,
    *,
    sft: Path,
    reward: str,
    out: Path,
    algorithm: Literal["ppo", "rloo"] = "ppo",
    rl: dict[str, Any] | None = None,
    gold: str | None = None,
    held: str | None = None,
    text: str | None = None,
    dialogue: Literal["none", "human-assistant"] | None = None,
    on_bad_rows: Literal["error", "drop"] = "error",
    options: dict[str, Any] | None = None,
    model: str | None = None,
    device: str = "auto",
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Tune a policy by reinforcement learning: rewarded answers, close to where it starts.

    Args:
        data: csv, tsv, json, jsonl or parquet file, or hub id, with prompts; answers there are not read.
        sft: Folder that pegbox sft wrote: where the policy starts, and what it is held to.
        reward: Folder that pegbox reward wrote on the same base, module:function of prompt and answer, or a
            .json file of rules.
        out: Folder for the policy; the metrics of each step are kept beside it as OUT-metrics.jsonl and .png.
        algorithm: ppo, or rloo, which needs no value model.
        rl: Settings of reinforcement learning, for example --rl.steps 200 --rl.beta 0.05. Names and defaults:
            steps (100), batch_size (64, answers of a step), minibatch_size (16, of them at once), draws (4,
            answers per prompt of rloo), epochs (2, passes over a batch), learning_rate (3e-4),
            value_learning_rate (unset, the policy's), beta (0.1, standard deviations of reward per nat from
            where it starts), target_kl (unset, nats per answer that beta is adapted to hold), kl_horizon
            (10000, answers), gamma (1.0), lam (0.95), clip (0.2), value_clip (unset), whiten (true,
            advantages to mean 0 and deviation 1), max_tokens (64, of an answer), missing_end_penalty (1.0,
            standard deviations of reward that an answer without its end loses), gradient_clip (1.0; 0 for
            none), precision (float32; auto, bf16), checkpoint_every (10, steps), evaluate_every (10, steps),
            held_draws (1, answers to each held-out prompt then), free (false; true allows beta 0).
        gold: A second reward that nothing is trained on, given like --reward, to see over-optimisation by.
        held: File of prompts for win rates; else a tenth of the prompts is held out.
        text: Columns that the prompt is made of, with commas between them; when not given those that the
            tuned model read, else guessed.
        dialogue: Read prompts of 'Human: ...' and 'Assistant: ...' as turns (human-assistant), or each as one
            message (none); as the reward model reads them when not given.
        on_bad_rows: What to do with rows that cannot be used.
        options: Options of the policy's LoRA where the tuned model has no adapter of its own.
        model: Where the base lies now, when its name no longer leads there.
        device: auto, cpu, cuda or mps.
        seed: Seed of the prompts held out, of the answers and of their order.
        resume: Continue an interrupted run of the same command.
        overwrite: Replace the output folder.
    """
    from rich.console import Console

    from pegbox._atomic import write_bytes
    from pegbox.methods import LoRA, build
    from pegbox.models import processes, quiet_libraries
    from pegbox.reports import course_diagram, scores_panel
    from pegbox.rlhf import METRICS
    from pegbox.tuning import align, clear_run_folder

    check_least(seed, 0, "--seed")
    settings = alignment_settings(algorithm, seed, rl)
    adapter = build("lora", options)
    assert isinstance(adapter, LoRA)
    run = _run_folder(out, overwrite)
    kept, picture = metrics_files(out)
    _check_beside((kept, picture), overwrite=overwrite or (resume and run.is_dir()))
    quiet_libraries()
    found = align(
        sft, reward, data, settings=settings, held=held, gold=gold, adapter=adapter, folder=run,
        texts=names(text), dialogue=dialogue, on_bad=on_bad_rows, resume=resume, say=say, model=model,
        device=device,
    )  # fmt: skip
    scores = found.judge() if len(found.aligner.held) else None
    if processes.rank():
        return  # the first of several processes saves
    write_bytes(kept, (run / METRICS).read_bytes())
    course_diagram(found.history, picture, f"{algorithm} of {out.name}")
    found.tuned.save(out, scores=scores, overwrite=overwrite)  # type: ignore[arg-type]
    (run / METRICS).unlink()
    clear_run_folder(run)
    for sample in found.samples:
        emit(
            f"prompt: {_shown(sample['prompt'])}\n  before: {_shown(sample['before'])}\n"
            f"  after:  {_shown(sample['after'])}\n"
        )
    if scores is not None:
        Console().print(scores_panel(scores, title=f"{algorithm} from {sft.name}"))
    cost = found.tuned.cost
    say(
        f"{cost.parameters:,} tuned parameters in {cost.seconds:.0f} s, saved in {out}; {kept.name} beside it"
    )


def alignment_settings(algorithm: str, seed: int, rl: dict[str, Any] | None) -> "Alignment":
    """Settings of reinforcement learning from the flags.

    Raises:
        UsageError: For a setting that is a flag of its own, an unknown one, or a value that cannot be.
    """
    from pegbox.rlhf import Alignment

    if own := sorted({"algorithm", "seed"} & set(rl or {})):
        raise UsageError(
            f"{' and '.join(own)} {'stands' if len(own) == 1 else 'stand'} beside rl, not in it",
            where=", ".join(f"rl.{name}" for name in own),
            expected=" and ".join(own) + " as options of ppo",
            fix=f"write {' and '.join(f'--{name}' for name in own)}; in a plan the same keys of the section",
        )
    return Alignment.of({"algorithm": algorithm, "seed": seed, **(rl or {})})


def dpo(
    data: str,
    *,
    sft: Path,
    out: Path,
    beta: float = 0.1,
    training: dict[str, Any] | None = None,
    valid: str | None = None,
    text: str | None = None,
    dialogue: Literal["none", "human-assistant"] = "none",
    on_bad_rows: Literal["error", "drop"] = "error",
    options: dict[str, Any] | None = None,
    model: str | None = None,
    device: str = "auto",
    too_long: Literal["shorten", "drop", "error"] = "shorten",
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Tune a policy on pairs of answers of which one was preferred, without a reward model.

    Args:
        data: csv, tsv, json, jsonl or parquet file, or hub id, with a prompt, a chosen and a rejected answer
            in each row.
        sft: Folder that pegbox sft wrote: where the policy starts, and what it is held to.
        out: Folder for the policy.
        beta: Weight of the divergence from where it starts.
        training: How to train, for example --training.epochs 1; the learning rate is 1e-4 when unset.
        valid: File of pairs for early stopping; else a share of the rows.
        text: Columns of prompt, chosen and rejected answer, with commas between them, or of the last two
            alone where they hold the prompt; guessed when not given.
        dialogue: Read prompts of 'Human: ...' and 'Assistant: ...' as turns (human-assistant), or each as one
            message (none).
        on_bad_rows: What to do with rows that cannot be used.
        options: Options of the policy's LoRA where the tuned model has no adapter of its own.
        model: Where the base lies now, when its name no longer leads there.
        device: auto, cpu, cuda or mps.
        too_long: What to do with rows longer than the context: cut the prompt at its beginning, never an
            answer, and leave out rows whose answers alone do not fit (shorten); leave the row out (drop); or
            refuse (error).
        seed: Seed of the rows held out and of the order.
        resume: Continue an interrupted run of the same command.
        overwrite: Replace the output folder.
    """
    from pegbox.methods import LoRA, build
    from pegbox.models import quiet_libraries
    from pegbox.tuning import Training, clear_run_folder
    from pegbox.tuning import dpo as tune

    settings, adapter = Training.of(training or {}), build("lora", options)
    assert isinstance(adapter, LoRA)
    run = _run_folder(out, overwrite)
    quiet_libraries()
    tuned = tune(
        sft, data, beta=beta, valid=valid, training=settings, adapter=adapter, folder=run, resume=resume,
        seed=seed, texts=names(text), dialogue=dialogue, on_bad=on_bad_rows, too_long=too_long, say=say,
        model=model, device=device,
    )  # fmt: skip
    if not first():
        return
    tuned.save(out, overwrite=overwrite)
    clear_run_folder(run)
    say(f"{tuned.cost.parameters:,} tuned parameters in {tuned.cost.seconds:.0f} s, saved in {out}")


def _shown(text: str) -> str:
    """A text on one line, its middle left out and counted where it is long."""
    line, half = " ".join(text.split()), _SHOWN // 2
    if len(line) <= _SHOWN:
        return line
    return f"{line[:half]} ... {len(line) - 2 * half:,} characters ... {line[-half:]}"


def _run_folder(out: Path, overwrite: bool) -> Path:
    """Folder of the checkpoints, once the output folder is free."""
    check_free(out, overwrite)
    check_writable(out / "README.md", "--out")
    if not out.name:
        raise UsageError("the output folder has no name", where=f"--out {out}", expected="a folder to make")
    return out.parent / f"{out.name}-run"


def _check_beside(files: Sequence[Path], *, overwrite: bool) -> None:
    """Raise UsageError when a file that goes beside the output folder is there and may not be replaced."""
    for path in files:
        kind, other = ("file", ", or replace it with --overwrite") if path.is_file() else ("folder", "")
        if path.exists() and not (overwrite and kind == "file"):
            raise UsageError(
                f"the metrics go beside the output folder, and there is a {kind} of that name",
                where=str(path),
                expected="no such file",
                fix=f"choose another --out{other}",
            )
