"""The loop: it can be killed anywhere, runs out of memory with grace, and keeps the best."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch", reason="needs torch; run `make train-setup`")
pytest.importorskip("peft", reason="needs the train extra")

import torch
from peft import PeftModel, get_peft_model

from proxy.protocol.base_model import DirectoryModel
from tests.trainer.bases import tiny
from trainer.batches import plan
from trainer.engines import base_weights, checkpoint
from trainer.engines.base_weights import Precision
from trainer.engines.journal import METRICS
from trainer.engines.loop import ENOUGH, Loop
from trainer.engines.loss import cross_entropy
from trainer.engines.peft import lora_config
from trainer.errors import Stopped, TrainingError
from trainer.recipe import LoraSettings, Recipe, TrainingSettings
from trainer.tokens import Example
from trainer.validation import Marks

STEPS = 8
EXAMPLES = [Example([5 + n, *range(20, 26 + n), 2], 3) for n in range(16)]
TRAINING = TrainingSettings(
    learning_rate=0.02, precision="bf16", batch_rows=4, micro_rows=4, epochs=2, checkpoint_every=1
)
RECIPE = msgspec.convert(
    {
        "domain": "test",
        "format": "structured",
        "template": "structured",
        "sources": [{"kind": "bfcl", "categories": []}],
    },
    Recipe,
)
LORA = LoraSettings(rank=8, alpha=16, dropout=0.2)
Heard = Callable[[PeftModel, Sequence[Example]], torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> DirectoryModel:
    return tiny(tmp_path_factory.mktemp("base"))


def fresh(base: DirectoryModel, precision: Precision = "bf16") -> PeftModel:
    torch.manual_seed(3)
    return get_peft_model(
        base_weights.load(base, precision), lora_config(LORA), autocast_adapter_dtype=False
    )


def run_of(
    base: DirectoryModel,
    run: Path,
    *,
    training: TrainingSettings = TRAINING,
    judge: Callable[[], Marks] | None = None,
    loss: Heard = cross_entropy,
) -> PeftModel:
    """Train in `run`, from its checkpoint if it has one."""
    run.mkdir(exist_ok=True)
    model = fresh(base)
    recipe = msgspec.structs.replace(RECIPE, lora=LORA, training=training)
    steps = plan(EXAMPLES, training, recipe.seed)
    Loop(model, steps, recipe, run, base_sha256="b", judge=judge, loss=loss).fit()
    return model


def adapter(model: PeftModel) -> torch.Tensor:
    """The adapter's parameters, one after the other."""
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def told(run: Path) -> list[dict[str, float]]:
    return [msgspec.json.decode(line) for line in (run / METRICS).read_bytes().splitlines()]


class After:
    """The loss, but something happens at the given call."""

    def __init__(self, call: int, happens: Callable[[], None]) -> None:
        self._left = call
        self._happens = happens

    def __call__(self, model: PeftModel, micro: Sequence[Example]) -> torch.Tensor:
        self._left -= 1
        if self._left == 0:
            self._happens()
        return cross_entropy(model, micro)


class Killed(BaseException):
    """As if the process were gone: nothing of ours catches it."""


def die() -> None:
    raise Killed


# ---------------------------------------------------------------- going on


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory) -> tuple[Path, torch.Tensor]:
    """A run that nobody interrupted, and its adapter."""
    run = tmp_path_factory.mktemp("whole")
    return run, adapter(run_of(base, run))


@pytest.mark.parametrize("killed_at", range(1, STEPS + 1))
def test_a_run_killed_at_any_step_ends_with_the_uninterrupted_runs_weights(
    base, whole, tmp_path, killed_at
):
    with pytest.raises(Killed):
        run_of(base, tmp_path, loss=After(killed_at, die))

    resumed = run_of(base, tmp_path)

    assert torch.equal(adapter(resumed), whole[1])


def test_a_resumed_runs_metrics_are_those_of_the_whole_one(base, whole, tmp_path):
    with pytest.raises(Killed):
        run_of(base, tmp_path, loss=After(6, die))

    run_of(base, tmp_path)

    assert [line["step"] for line in told(tmp_path)] == list(range(STEPS))
    assert [line["loss"] for line in told(tmp_path)] == [line["loss"] for line in told(whole[0])]
    assert [line["rate"] for line in told(tmp_path)] == [line["rate"] for line in told(whole[0])]


def test_steps_since_the_last_checkpoint_are_taken_again(base, whole, tmp_path):
    rarely = msgspec.structs.replace(TRAINING, checkpoint_every=3)
    with pytest.raises(Killed):
        run_of(base, tmp_path, training=rarely, loss=After(6, die))

    resumed = run_of(base, tmp_path, training=rarely)

    assert torch.equal(adapter(resumed), whole[1])
    assert [line["step"] for line in told(tmp_path)] == list(range(STEPS))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_ends_the_run(base, whole, tmp_path, number):
    rarely = msgspec.structs.replace(TRAINING, checkpoint_every=100)

    with pytest.raises(Stopped, match="stopped after step 3 of 8"):
        run_of(
            base,
            tmp_path,
            training=rarely,
            loss=After(3, lambda: os.kill(os.getpid(), number)),
        )

    assert len(told(tmp_path)) == 3
    assert torch.equal(adapter(run_of(base, tmp_path, training=rarely)), whole[1])


def test_a_file_that_says_enough_ends_the_run_with_what_is_learnt(base, tmp_path):
    run_of(base, tmp_path, loss=After(3, (tmp_path / ENOUGH).touch))

    assert len(told(tmp_path)) == 3
    assert not (tmp_path / ENOUGH).exists()


def test_a_stopped_run_that_is_said_to_be_enough_takes_no_further_step(base, tmp_path):
    with pytest.raises(Stopped):
        run_of(base, tmp_path, loss=After(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    kept = torch.load(tmp_path / checkpoint.CHECKPOINT, weights_only=True)["adapter"]
    (tmp_path / ENOUGH).touch()

    ended = run_of(base, tmp_path)

    assert len(told(tmp_path)) == 3
    assert torch.equal(adapter(ended), torch.cat([one.flatten() for one in kept]).bfloat16())


def test_signals_are_heard_as_before_once_the_run_is_over(base, tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    run_of(base, tmp_path)

    assert signal.getsignal(signal.SIGTERM) is before


def test_a_checkpoint_of_another_recipe_is_refused(base, tmp_path):
    with pytest.raises(Killed):
        run_of(base, tmp_path, loss=After(4, die))
    other = msgspec.structs.replace(TRAINING, learning_rate=0.01)

    with pytest.raises(TrainingError, match=r"belongs to another recipe.*take another --out"):
        run_of(base, tmp_path, training=other)


def test_a_torn_checkpoint_is_refused_with_the_remedy(base, tmp_path):
    (tmp_path / checkpoint.CHECKPOINT).write_bytes(b"PK torn")

    with pytest.raises(TrainingError, match="delete it to start anew"):
        run_of(base, tmp_path)


# ---------------------------------------------------------------- memory


class Small:
    """Memory that holds so many rows of a micro-batch; less is kept with checkpointing."""

    def __init__(self, rows: int, checkpointed: bool = False) -> None:
        self._rows = rows
        self._checkpointed = checkpointed
        self.seen: list[int] = []

    def __call__(self, model: PeftModel, micro: Sequence[Example]) -> torch.Tensor:
        fits = len(micro) <= self._rows
        if not fits and not (self._checkpointed and model.is_gradient_checkpointing):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.seen.append(len(micro))
        return cross_entropy(model, micro)


def test_a_micro_batch_that_does_not_fit_is_halved_and_the_step_stays_as_it_was(base, tmp_path):
    plain = msgspec.structs.replace(TRAINING, max_steps=1)
    small = Small(1)
    # Without dropout, which draws once a micro-batch, halving changes nothing but rounding.
    with_room, without = fresh(base, "fp32"), fresh(base, "fp32")
    for module in (*with_room.modules(), *without.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    recipe = msgspec.structs.replace(RECIPE, lora=LORA, training=plain)
    steps = plan(EXAMPLES, plain, 0)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Loop(with_room, steps, recipe, tmp_path / "a", base_sha256="b").fit()
    Loop(without, steps, recipe, tmp_path / "b", base_sha256="b", loss=small).fit()

    assert small.seen == [1, 1, 1, 1]
    assert told(tmp_path / "b")[0]["loss"] == pytest.approx(told(tmp_path / "a")[0]["loss"])
    assert torch.allclose(adapter(with_room), adapter(without), atol=1e-4)


def test_a_row_that_does_not_fit_alone_has_its_activations_computed_again(base, tmp_path):
    model = run_of(base, tmp_path, loss=Small(0, checkpointed=True))

    assert model.is_gradient_checkpointing
    assert len(told(tmp_path)) == STEPS


def test_computing_activations_again_changes_no_gradient(base, whole, tmp_path):
    again = msgspec.structs.replace(TRAINING, gradient_checkpointing=True)

    model = run_of(base, tmp_path, training=again)

    assert torch.equal(adapter(model), whole[1])


def test_a_row_that_does_not_fit_at_all_ends_the_run_with_what_helps(base, tmp_path):
    with pytest.raises(TrainingError, match=r"single example \(1 rows, .*precision: nf4"):
        run_of(base, tmp_path, loss=Small(0))


def test_what_was_learnt_about_memory_outlives_a_kill(base, tmp_path):
    small = Small(2)
    with pytest.raises(Killed):
        run_of(base, tmp_path, loss=Chain(small, After(5, die)))

    again = Small(4)
    run_of(base, tmp_path, loss=again)

    assert max(again.seen) == 2


class Chain:
    """Both."""

    def __init__(self, first: Heard, second: Heard) -> None:
        self._both = (first, second)

    def __call__(self, model: PeftModel, micro: Sequence[Example]) -> torch.Tensor:
        first, second = self._both
        first(model, micro)
        return second(model, micro)


def test_another_error_is_no_lack_of_memory(base, tmp_path):
    def broken(model: PeftModel, micro: Sequence[Example]) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_of(base, tmp_path, loss=broken)


# ---------------------------------------------------------------- what ends a run


def test_a_loss_that_is_no_number_ends_the_run(base, tmp_path):
    def lost(model: PeftModel, micro: Sequence[Example]) -> torch.Tensor:
        return cross_entropy(model, micro) * float("nan")

    with pytest.raises(TrainingError, match=r"no number any more at step 1; lower `training\.l"):
        run_of(base, tmp_path, loss=lost)


def test_the_adapter_that_validation_liked_best_is_kept(base, tmp_path):
    watched = msgspec.structs.replace(TRAINING, validate_every=2)
    marks = iter([Marks(0.2, 0, -1), Marks(0.6, 0, -1), Marks(0.4, 0, -1), Marks(0.6, -1, -0.5)])
    until_best = msgspec.structs.replace(watched, checkpoint_every=4)
    with pytest.raises(Killed):
        run_of(
            base,
            tmp_path / "part",
            training=until_best,
            judge=lambda: next(marks),
            loss=After(5, die),
        )
    state = torch.load(tmp_path / "part" / checkpoint.CHECKPOINT, weights_only=True)
    marks = iter([Marks(0.2, 0, -1), Marks(0.6, 0, -1), Marks(0.4, 0, -1), Marks(0.6, -1, -0.5)])

    best = run_of(base, tmp_path / "whole", training=watched, judge=lambda: next(marks))

    kept = torch.cat([part.flatten() for part in state["adapter"]]).bfloat16()
    assert torch.equal(adapter(best), kept)
    shares = [line["call_exact"] for line in told(tmp_path / "whole") if "call_exact" in line]
    assert shares == [0.2, 0.6, 0.4, 0.6]


def test_a_run_that_gets_no_better_ends_early(base, tmp_path):
    watched = msgspec.structs.replace(TRAINING, validate_every=1, patience=2)

    run_of(base, tmp_path, training=watched, judge=lambda: Marks(0.5, 0, -1))

    assert len(told(tmp_path)) == 3


def test_what_is_told_is_seen_in_tensorboard(base, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    run_of(base, tmp_path)

    board = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [event.value for event in board.Scalars("loss")]
    assert losses == pytest.approx([line["loss"] for line in told(tmp_path)])
