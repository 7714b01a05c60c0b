"""What can go wrong in the trainer, as one tree; every message names the place and the remedy.

TrainerError
├── RecipeError        a recipe that cannot be run
├── SourceError        rows that cannot be read
├── LabellingError     a teacher that cannot be asked
├── DatasetError       a dataset that cannot be made or is not what its manifest says
├── SandboxError       code that cannot be run safely here
├── PreflightError     rows that would train something else than what is meant
├── TrainingError      a run that went wrong
├── Stopped            a run that was asked to stop, and can go on
├── TraceError         a name of which nothing is known
├── RegistryError      a bundle that cannot be kept, found or promoted
├── CostError          a calculation that lacks a figure
├── GateError          a verdict that cannot be given, or is not one to act upon
├── FlywheelError      a run of the flywheel that cannot be made
├── Locked             a domain that another process works on
├── PromotionError     a promotion that cannot be begun, or a rollback to nothing
└── JudgeError         a judge that cannot be asked, or does not count
"""

from __future__ import annotations


class TrainerError(Exception):
    """Something that the person at the keyboard is told about."""

    status = 1
    """What the command exits with."""


def cause_of(error: Exception) -> str:
    """What went wrong with a file, without its name, which stands before it."""
    match error:
        case OSError(strerror=str(told)):
            return told
        case UnicodeDecodeError():
            return f"not UTF-8 text (byte {error.start})"
        case _ if str(error) == "Expected `object`, got `null`":
            return "the file is empty"
        case _:
            return " ".join(str(error).split())


class RecipeError(TrainerError):
    pass


class SourceError(TrainerError):
    pass


class LabellingError(TrainerError):
    pass


class DatasetError(TrainerError):
    pass


class SandboxError(TrainerError):
    pass


class PreflightError(TrainerError):
    pass


class TrainingError(TrainerError):
    pass


class CostError(TrainerError):
    pass


class GateError(TrainerError):
    pass


class PromotionError(TrainerError):
    pass


class RegistryError(TrainerError):
    pass


class TraceError(TrainerError):
    pass


class FlywheelError(TrainerError):
    pass


class Locked(TrainerError):
    status = 75
    """EX_TEMPFAIL of sysexits.h: try again later."""


class JudgeError(TrainerError):
    pass


class Stopped(TrainerError):
    status = 143
    """128 + SIGTERM, so that whoever sent it sees that it was heard."""
